// Package scim keeps memberships in a SCIM 2.0 service provider (RFC 7643, RFC
// 7644) what they are here.
//
// People are found by userName and made when they are not there; groups by
// displayName, likewise. Nobody and no group is ever deleted or changed but for
// its members, and of those only the memberships that groupgate told this
// target of earlier.
//
// Servers differ in what they can do. One that lists a person's groups
// (User.groups, which the RFC leaves open) is asked what is missing, and
// afterwards whether it is there; of others each changed group is read. One
// that cannot PATCH gets the whole group by PUT, under its ETag when it has one.
package scim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/outbound"
)

// Config is "scim" of a target.
type Config struct {
	URL   string `yaml:"url"` // the base, such as https://wiki.example.com/scim/v2
	Token string `yaml:"token" secret:"true"`
}

const (
	maxAnswer = 8 << 20
	pageSize  = 100
	maxPages  = 50

	mediaType   = "application/scim+json"
	userSchema  = "urn:ietf:params:scim:schemas:core:2.0:User"
	groupSchema = "urn:ietf:params:scim:schemas:core:2.0:Group"
	patchSchema = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
)

// Target is a [groups.Target].
type Target struct {
	cfg    Config
	base   string
	client *outbound.Client
	now    func() time.Time
	// noPatch: the server was found not to know PATCH of groups.
	noPatch atomic.Bool
}

// New makes a target. The configuration was checked.
func New(cfg Config) *Target {
	return &Target{cfg: cfg, base: strings.TrimRight(cfg.URL, "/"), client: outbound.New(), now: time.Now}
}

// Close lets go of connections.
func (t *Target) Close() error { t.client.Close(); return nil }

// resource is what is read of users and groups.
type resource struct {
	ID          string   `json:"id"`
	UserName    string   `json:"userName"`
	DisplayName string   `json:"displayName"`
	Groups      []member `json:"groups"`  // of a user; nil: the server does not say
	Members     []member `json:"members"` // of a group
}

type member struct {
	Value   string `json:"value"`
	Display string `json:"display,omitempty"`
	Type    string `json:"type,omitempty"`
}

// in reports whether a user's groups have the group, directly.
func (r *resource) in(g *resource) bool {
	return slices.ContainsFunc(r.Groups, func(m member) bool { return m.Value == g.ID && m.Type != "indirect" })
}

// Push makes the person's memberships what they should be.
func (t *Target) Push(ctx context.Context, p groups.Person) error {
	for _, name := range p.Was {
		u, err := t.user(ctx, name)
		if err == nil && u != nil {
			err = t.settle(ctx, u, nil, nil, union(p.Groups, p.Removed))
		}
		if err != nil {
			return err
		}
	}
	if p.Gone {
		return nil
	}
	u, err := t.user(ctx, p.User.Name)
	if err != nil {
		return err
	}
	if u == nil {
		if len(p.Groups) == 0 {
			return nil
		}
		if u, err = t.createUser(ctx, p.User); err != nil {
			return err
		}
		return t.settle(ctx, u, p.Groups, p.Groups, nil)
	}
	return t.settle(ctx, u, p.Groups, p.Added, p.Removed)
}

func union(a, b []string) []string {
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	return slices.Compact(all)
}

// settle puts a user into groups and takes the user from others. A server that
// does not list a user's groups is told of the fresh ones alone. A group that is
// refused does not keep others from being told; anything else does.
func (t *Target) settle(ctx context.Context, u *resource, want, fresh, drop []string) error {
	knows := u.Groups != nil
	if !knows {
		want = fresh
	}
	var refused error
	changed := false
	for _, c := range []struct {
		names []string
		add   bool
	}{{want, true}, {drop, false}} {
		for _, name := range c.names {
			done, err := t.member(ctx, u, name, c.add)
			changed = changed || done
			if err != nil && !errors.Is(err, groups.ErrTargetRefused) {
				return err
			}
			if refused == nil {
				refused = err
			}
		}
	}
	if refused == nil && knows && changed {
		return t.verify(ctx, u, want, drop)
	}
	return refused
}

// member makes a user a member of a group, or no member.
func (t *Target) member(ctx context.Context, u *resource, name string, add bool) (changed bool, err error) {
	if u.Groups != nil && add && slices.ContainsFunc(u.Groups, func(m member) bool { return m.Display == name && m.Type != "indirect" }) {
		return false, nil
	}
	g, err := t.search(ctx, "Groups", "displayName", name)
	if err != nil {
		return false, err
	}
	switch {
	case g == nil && !add:
		return false, nil
	case g == nil:
		return true, t.createGroup(ctx, u, name)
	case u.Groups != nil && u.in(g) == add:
		return false, nil
	}
	after, err := t.change(ctx, g, u, add)
	if err == nil && u.Groups == nil {
		err = t.verifyGroup(ctx, g, u, after, add)
	}
	if err != nil {
		return true, fmt.Errorf("scim: group %q: %w", name, err)
	}
	return true, nil
}

// change changes the one member of a group. It answers the group as it is then,
// when the server says so.
func (t *Target) change(ctx context.Context, g, u *resource, add bool) (*resource, error) {
	if t.noPatch.Load() {
		return nil, t.put(ctx, g, u, add)
	}
	op := map[string]any{"op": "remove", "path": "members[value eq " + quote(u.ID) + "]"}
	if add {
		op = map[string]any{"op": "add", "path": "members", "value": []member{{Value: u.ID}}}
	}
	answer, err := t.do(ctx, http.MethodPatch, "Groups/"+url.PathEscape(g.ID), map[string]any{"schemas": []string{patchSchema}, "Operations": []any{op}}, "")
	if err != nil {
		return nil, err
	}
	switch answer.Status {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusNotFound:
		// RFC 7644 section 3.5.2: PATCH is optional. A group that went meanwhile
		// answers 404 to PUT's reading as well.
		err := t.put(ctx, g, u, add)
		if err == nil {
			t.noPatch.Store(true)
		}
		return nil, err
	case http.StatusBadRequest:
		if !add && scimType(answer) == "noTarget" {
			return nil, nil // no such member; whether that is so, is looked at
		}
	}
	if !answer.OK() {
		return nil, t.fault("change members", answer)
	}
	var after resource
	if json.Unmarshal(answer.Body, &after) == nil && after.ID == g.ID && after.Members != nil {
		return &after, nil
	}
	return nil, nil
}

// put writes a whole group with one member more or less. What else is in it
// stays as it was read.
func (t *Target) put(ctx context.Context, g, u *resource, add bool) error {
	path := "Groups/" + url.PathEscape(g.ID)
	for range 4 {
		answer, err := t.do(ctx, http.MethodGet, path, nil, "")
		if err != nil {
			return err
		}
		if !answer.OK() {
			return t.fault("read the group", answer)
		}
		var whole map[string]json.RawMessage
		var members []map[string]any
		if json.Unmarshal(answer.Body, &whole) != nil || whole["members"] != nil && json.Unmarshal(whole["members"], &members) != nil {
			return errors.New("the answer is not a group")
		}
		is := func(m map[string]any) bool { return m["value"] == u.ID }
		if slices.ContainsFunc(members, is) == add {
			return nil
		}
		if add {
			members = append(members, map[string]any{"value": u.ID})
		} else {
			members = slices.DeleteFunc(members, is)
		}
		if members == nil {
			members = []map[string]any{}
		}
		if whole["members"], err = json.Marshal(members); err != nil {
			return err
		}
		tag := answer.Header.Get("ETag")
		var meta struct{ Version string }
		if tag == "" && json.Unmarshal(whole["meta"], &meta) == nil {
			tag = meta.Version
		}
		delete(whole, "meta")
		if answer, err = t.do(ctx, http.MethodPut, path, whole, tag); err != nil {
			return err
		}
		if answer.Status == http.StatusPreconditionFailed {
			continue // somebody else wrote it
		}
		if !answer.OK() {
			return t.fault("write the group", answer)
		}
		return nil
	}
	return errors.New("write the group: somebody else does all the time")
}

// verify asks a server that lists a user's groups whether it did what it said.
func (t *Target) verify(ctx context.Context, u *resource, want, drop []string) error {
	answer, err := t.do(ctx, http.MethodGet, "Users/"+url.PathEscape(u.ID), nil, "")
	if err != nil {
		return err
	}
	if !answer.OK() {
		return t.fault("read the user", answer)
	}
	var now resource
	if json.Unmarshal(answer.Body, &now) != nil || now.ID != u.ID {
		return errors.New("scim: read the user: the answer is not the user")
	}
	for add, names := range map[bool][]string{true: want, false: drop} {
		for _, name := range names {
			have := slices.ContainsFunc(now.Groups, func(m member) bool { return m.Display == name && m.Type != "indirect" })
			if have == add {
				continue
			}
			// A server need not say what its groups are called.
			g, err := t.search(ctx, "Groups", "displayName", name)
			if err != nil {
				return err
			}
			if (g != nil && now.in(g)) != add {
				return fmt.Errorf("scim: group %q: the target did not do what it said", name)
			}
		}
	}
	return nil
}

// verifyGroup looks at one group. One too large to be read is believed.
func (t *Target) verifyGroup(ctx context.Context, g, u, after *resource, add bool) error {
	if after == nil {
		answer, err := t.do(ctx, http.MethodGet, "Groups/"+url.PathEscape(g.ID), nil, "")
		if errors.Is(err, outbound.ErrTooLong) {
			return nil
		}
		if err != nil {
			return err
		}
		if answer.Status == http.StatusNotFound && !add {
			return nil
		}
		if !answer.OK() {
			return t.fault("read the group", answer)
		}
		after = &resource{}
		if json.Unmarshal(answer.Body, after) != nil || after.ID != g.ID {
			return errors.New("read the group: the answer is not the group")
		}
	}
	if slices.ContainsFunc(after.Members, func(m member) bool { return m.Value == u.ID }) != add {
		return errors.New("the target did not do what it said")
	}
	return nil
}

func (t *Target) createUser(ctx context.Context, u groups.User) (*resource, error) {
	body := map[string]any{"schemas": []string{userSchema}, "userName": u.Name, "externalId": u.ID.String(), "active": true}
	if u.Display != "" {
		body["displayName"] = u.Display
	}
	if u.Email != "" {
		body["emails"] = []map[string]any{{"value": u.Email, "primary": true}}
	}
	made, err := t.create(ctx, "Users", body)
	if err == nil && made == nil {
		if made, err = t.user(ctx, u.Name); err == nil && made == nil {
			err = outbound.Refused(errors.New("scim: make the user: the target says it is there (409), and does not find it"))
		}
	}
	return made, err
}

func (t *Target) createGroup(ctx context.Context, u *resource, name string) error {
	made, err := t.create(ctx, "Groups", map[string]any{"schemas": []string{groupSchema}, "displayName": name, "members": []member{{Value: u.ID}}})
	if err != nil {
		return fmt.Errorf("scim: group %q: %w", name, err)
	}
	if made == nil { // somebody else made it
		if made, err = t.search(ctx, "Groups", "displayName", name); err != nil {
			return err
		}
		if made == nil {
			return outbound.Refused(fmt.Errorf("scim: group %q: the target says it is there (409), and does not find it", name))
		}
	}
	if slices.ContainsFunc(made.Members, func(m member) bool { return m.Value == u.ID }) {
		return nil
	}
	after, err := t.change(ctx, made, u, true)
	if err == nil {
		err = t.verifyGroup(ctx, made, u, after, true)
	}
	if err != nil {
		return fmt.Errorf("scim: group %q: %w", name, err)
	}
	return nil
}

// create answers nil when the resource is there already.
func (t *Target) create(ctx context.Context, kind string, body map[string]any) (*resource, error) {
	answer, err := t.do(ctx, http.MethodPost, kind, body, "")
	if err != nil {
		return nil, err
	}
	if answer.Status == http.StatusConflict {
		return nil, nil
	}
	if !answer.OK() {
		return nil, t.fault("make "+kind, answer)
	}
	made := &resource{}
	if json.Unmarshal(answer.Body, made) != nil || made.ID == "" {
		return nil, fmt.Errorf("scim: make %s: the answer is not what was made", kind)
	}
	return made, nil
}

// Probe asks for one group, which takes the token.
func (t *Target) Probe(ctx context.Context) (string, error) {
	answer, err := t.do(ctx, http.MethodGet, "Groups?startIndex=1&count=1&excludedAttributes=members", nil, "")
	if err != nil {
		return "", err
	}
	if !answer.OK() {
		return "", t.fault("read groups", answer)
	}
	var list struct {
		Total *int `json:"totalResults"`
	}
	if json.Unmarshal(answer.Body, &list) != nil || list.Total == nil {
		return "", errors.New("scim: read groups: the answer is no list")
	}
	return fmt.Sprintf("SCIM 2.0, %d groups", *list.Total), nil
}
