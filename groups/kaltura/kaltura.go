// Package kaltura keeps memberships in a Kaltura account (API v3) what they are
// here.
//
// A group of Kaltura's is a user of type GROUP, and a membership is a groupUser.
// People and groups are found by their id, which is the name they have here, and
// made when they are not there. Nobody and no group is ever deleted or changed,
// and of memberships only those are taken away that groupgate told this target
// of earlier.
//
// Not every name can be an id. One that cannot is refused, never altered: two
// names made alike would let one group's people into another's.
package kaltura

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/outbound"
)

// Config is "kaltura" of a target.
type Config struct {
	URL         string `yaml:"url"` // such as https://www.kaltura.com/api_v3
	PartnerID   int    `yaml:"partner_id"`
	AdminSecret string `yaml:"admin_secret" secret:"true"`
}

const (
	maxAnswer = 8 << 20
	pageSize  = 500 // KalturaFilterPager: the most
	maxPages  = 50
	maxID     = 320
)

// KalturaUserType.
const (
	typePerson = 0
	typeGroup  = 1
)

// Target is a [groups.Target].
type Target struct {
	cfg    Config
	base   string
	client *outbound.Client
	now    func() time.Time

	mu sync.Mutex
	ks string // the session; "" before the first, and after one that is over
}

// New makes a target. The configuration was checked.
func New(cfg Config) *Target {
	return &Target{cfg: cfg, base: strings.TrimRight(cfg.URL, "/"), client: outbound.New(), now: time.Now}
}

// Close lets go of connections. The session ends by itself.
func (t *Target) Close() error { t.client.Close(); return nil }

// user is what is read of a KalturaUser.
type user struct {
	ID   string `json:"id"`
	Type int    `json:"type"`
}

// fits reports whether Kaltura takes a name as an id: 1 to 320 of these
// characters (user.add answers INVALID_FIELD_VALUE to anything else).
func fits(name string) bool {
	const marks = ",!#$%&'*+?^_`{|}~.@-"
	for i := range len(name) {
		c := name[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && strings.IndexByte(marks, c) < 0 {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= maxID
}

func misfit(what, name string) error {
	return outbound.Refused(fmt.Errorf("kaltura: the %s %q cannot be an id there: Kaltura takes up to %d of letters without accents, digits and ,!#$%%&'*+?^_`{|}~.@-", what, name, maxID))
}

// Push makes the person's memberships what they should be.
func (t *Target) Push(ctx context.Context, p groups.Person) error {
	for _, name := range p.Was {
		if !fits(name) {
			continue // it was never told there
		}
		there, err := t.find(ctx, "user name", name, typePerson)
		if err == nil && there {
			err = t.settle(ctx, name, nil, union(p.Groups, p.Removed))
		}
		if err != nil {
			return err
		}
	}
	if p.Gone {
		return nil
	}
	name := p.User.Name
	if !fits(name) {
		if len(p.Groups) == 0 {
			return nil
		}
		return misfit("user name", name)
	}
	there, err := t.find(ctx, "user name", name, typePerson)
	if err != nil {
		return err
	}
	if !there {
		if len(p.Groups) == 0 {
			return nil
		}
		more := params{"user:email": p.User.Email, "user:screenName": p.User.Display}
		if err := t.create(ctx, "user name", name, typePerson, more); err != nil {
			return err
		}
	}
	return t.settle(ctx, name, p.Groups, p.Removed)
}

func union(a, b []string) []string {
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	return slices.Compact(all)
}

// settle puts a person into groups and takes the person from others. A group
// that is refused does not keep others from being told; anything else does.
func (t *Target) settle(ctx context.Context, person string, want, drop []string) error {
	have, err := t.memberships(ctx, person)
	if err != nil {
		return err
	}
	var refused error
	changed := false
	tell := func(name string, change func(context.Context, string, string) error) error {
		changed = true
		err := change(ctx, person, name)
		if err != nil && !errors.Is(err, groups.ErrTargetRefused) {
			return err
		}
		if refused == nil {
			refused = err
		}
		return nil
	}
	for _, name := range want {
		if have[name] {
			continue
		}
		if err := tell(name, t.join); err != nil {
			return err
		}
	}
	for _, name := range drop {
		if !have[name] {
			continue
		}
		if err := tell(name, t.leave); err != nil {
			return err
		}
	}
	if refused == nil && changed {
		return t.verify(ctx, person, want, drop)
	}
	return refused
}

// verify asks whether the target did what it said.
func (t *Target) verify(ctx context.Context, person string, want, drop []string) error {
	have, err := t.memberships(ctx, person)
	if err != nil {
		return err
	}
	for add, names := range map[bool][]string{true: want, false: drop} {
		for _, name := range names {
			if have[name] != add {
				return fmt.Errorf("kaltura: group %q: the target did not do what it said", name)
			}
		}
	}
	return nil
}

// join makes a person a member of a group, which is made when it is not there.
func (t *Target) join(ctx context.Context, person, group string) error {
	if !fits(group) {
		return misfit("group name", group)
	}
	there, err := t.find(ctx, "group name", group, typeGroup)
	if err == nil && !there {
		err = t.create(ctx, "group name", group, typeGroup, nil)
	}
	if err != nil {
		return err
	}
	_, err = ask[object](ctx, t, "groupUser", "add", params{
		"groupUser:objectType": "KalturaGroupUser", "groupUser:userId": person, "groupUser:groupId": group,
	})
	if is(err, "GROUP_USER_ALREADY_EXISTS") {
		return nil // whether that is so, is looked at
	}
	return of(group, err)
}

// leave makes a person no member of a group. What is not there need not be left;
// whether that is so, is looked at.
func (t *Target) leave(ctx context.Context, person, group string) error {
	// The answer to an action that answers nothing is null.
	_, err := ask[*object](ctx, t, "groupUser", "delete", params{"userId": person, "groupId": group})
	if is(err, "GROUP_USER_DOES_NOT_EXISTS", "GROUP_NOT_FOUND", "INVALID_USER_ID") {
		return nil
	}
	return of(group, err)
}

func of(group string, err error) error {
	if err != nil {
		return fmt.Errorf("group %q: %w", group, err)
	}
	return nil
}

// memberships lists the groups a person is in.
func (t *Target) memberships(ctx context.Context, person string) (map[string]bool, error) {
	in := map[string]bool{}
	for page, seen := 1, 0; ; page++ {
		list, err := ask[struct {
			Total   *int `json:"totalCount"`
			Objects []struct {
				User   string `json:"userId"`
				Group  string `json:"groupId"`
				Status int    `json:"status"` // KalturaGroupUserStatus: 0 is ACTIVE
			} `json:"objects"`
		}](ctx, t, "groupUser", "list", params{
			"filter:objectType": "KalturaGroupUserFilter", "filter:userIdEqual": person, "filter:orderBy": "+createdAt",
			"pager:objectType": "KalturaFilterPager", "pager:pageSize": strconv.Itoa(pageSize), "pager:pageIndex": strconv.Itoa(page),
		})
		if err != nil {
			return nil, err
		}
		if list.Total == nil {
			return nil, errors.New("kaltura: groupUser.list: the answer is no list")
		}
		for _, m := range list.Objects {
			if m.User == person && m.Status == 0 {
				in[m.Group] = true
			}
		}
		seen += len(list.Objects)
		if len(list.Objects) == 0 || seen >= *list.Total {
			return in, nil
		}
		if page == maxPages {
			return nil, outbound.Refused(errors.New("kaltura: groupUser.list: there is no end to it"))
		}
	}
}

// find reports whether there is a person, or a group, with an id. Its database
// may take ids that differ in capitals for the same, and the answer is another's
// then.
func (t *Target) find(ctx context.Context, what, name string, kind int) (bool, error) {
	u, err := ask[user](ctx, t, "user", "get", params{"userId": name})
	switch {
	case is(err, "INVALID_USER_ID"):
		return false, nil
	case err != nil:
		return false, err
	case strings.EqualFold(u.ID, name) && u.ID != name:
		return false, outbound.Refused(fmt.Errorf("kaltura: the %s %q is there with other capitals", what, name))
	case u.ID != name:
		return false, errors.New("kaltura: user.get: the answer is not the user")
	case (u.Type == typeGroup) != (kind == typeGroup):
		return false, outbound.Refused(fmt.Errorf("kaltura: the %s %q is there, and not of its kind: people and groups share their ids", what, name))
	}
	return true, nil
}

// create makes a person or a group, which somebody else may do meanwhile.
func (t *Target) create(ctx context.Context, what, name string, kind int, more params) error {
	fields := params{"user:objectType": "KalturaUser", "user:id": name, "user:type": strconv.Itoa(kind)}
	for k, v := range more {
		if v != "" {
			fields[k] = v
		}
	}
	made, err := ask[user](ctx, t, "user", "add", fields)
	if is(err, "DUPLICATE_USER_BY_ID") {
		there, err := t.find(ctx, what, name, kind)
		if err == nil && !there {
			err = outbound.Refused(fmt.Errorf("kaltura: the %s %q: the target says it is there, and does not find it", what, name))
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", what, name, err)
	}
	if made.ID != name || made.Type != kind {
		return errors.New("kaltura: user.add: the answer is not what was made")
	}
	return nil
}

// Probe starts a session, and asks whether it is one of an administrator.
func (t *Target) Probe(ctx context.Context) (string, error) {
	s, err := ask[struct {
		Partner int `json:"partnerId"`
		Type    int `json:"sessionType"`
	}](ctx, t, "session", "get", nil)
	if err != nil {
		return "", err
	}
	if s.Partner != t.cfg.PartnerID || s.Type != sessionAdmin {
		return "", errors.New("kaltura: session.get: not a session of this partner's administrator")
	}
	return fmt.Sprintf("Kaltura, partner %d", s.Partner), nil
}
