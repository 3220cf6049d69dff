package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// keeper is a source that keeps passwords, and counts what reaches it.
type keeper struct {
	name     string
	mu       sync.Mutex
	accounts map[string]*account // by user name, and again by other names of theirs
	asked    []string            // user names as they came
	fault    error               // in place of every answer
	hangs    bool                // until the caller gives up
}

type account struct {
	subject, user, password string
	disabled, locked        bool
	groups                  []string
}

func newKeeper(name string) *keeper {
	k := &keeper{name: name, accounts: map[string]*account{}}
	for _, user := range []string{"alice", "bob", "carol", "mallory"} {
		k.accounts[user] = &account{subject: name + "-" + user, user: user, password: passwordOf(user), groups: []string{"staff"}}
	}
	k.accounts["a.example"] = k.accounts["alice"] // another name of hers
	return k
}

func passwordOf(user string) string { return "the password of " + user }

func (k *keeper) Name() string { return k.name }

func (k *keeper) CheckPassword(ctx context.Context, c claims.Credentials) (*claims.Identity, *claims.Grant, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, c.User)
	if k.hangs {
		<-ctx.Done()
		return nil, nil, ctx.Err()
	}
	if k.fault != nil {
		return nil, nil, k.fault
	}
	user := strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(c.User)), `corp\`), "@corp")
	a := k.accounts[user]
	if a == nil {
		return nil, nil, fmt.Errorf("%s: %w", k.name, claims.ErrBadPassword)
	}
	if c.Attempt != nil {
		if err := c.Attempt(a.subject); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case c.Password != a.password:
		return nil, nil, fmt.Errorf("%s: %w", k.name, claims.ErrBadPassword)
	case a.disabled:
		return nil, nil, fmt.Errorf("%s: %w", k.name, &claims.DisabledError{Subject: a.subject, Why: "the account is disabled"})
	case a.locked:
		return nil, nil, fmt.Errorf("%s: the account is locked: %w", k.name, claims.ErrDenied)
	}
	return &claims.Identity{Source: k.name, Subject: a.subject, IssuedAt: time.Now(), Claims: claims.FromMap(map[string][]string{
		"preferred_username": {a.user}, "email": {a.user + "@example.com"}, "name": {a.user}, "groups": a.groups,
	})}, nil, nil
}

// calls is how often the source was asked since the last time.
func (k *keeper) calls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.asked)
	k.asked = nil
	return n
}

func (k *keeper) change(fn func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fn()
}

// withForm makes the keeper the rig's source, beside others if there are any.
// Clients may say by X-Forwarded-For where they come from.
func withForm(k *keeper, others ...proxy.SourceEntry) option {
	return func(r *rig) {
		r.settings.Sources = append([]proxy.SourceEntry{{Source: k, Label: "Company directory", Protocol: "ldap"}}, others...)
		r.groups.Sources = append(r.groups.Sources, groups.SourceSettings{
			Name: k.name, Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Keep},
		})
		r.groups.Rules = append(r.groups.Rules, groups.Rule{ID: k.name, Source: k.name, Claim: "groups", Any: true})
		trustLoopback(r)
	}
}

// from says which address a browser comes from.
func from(b *claimstest.Browser, address string) *claimstest.Browser {
	b.Header.Set("X-Forwarded-For", address)
	return b
}

// form opens the form of a source.
func (r *rig) form(b *claimstest.Browser, query string) *claimstest.Page {
	r.t.Helper()
	page, err := b.Get(r.server.URL + "/_auth/start?" + query)
	if err != nil || page.Status != http.StatusOK || len(page.Forms()) != 1 {
		r.t.Fatalf("no form: %v, %+v", err, page)
	}
	return page
}

// submit fills the form of a page.
func (r *rig) submit(b *claimstest.Browser, form *claimstest.Page, user, password string) *claimstest.Page {
	r.t.Helper()
	page, err := b.Submit(form, map[string]string{"username": user, "password": password})
	if err != nil {
		r.t.Fatal(err)
	}
	return page
}

// try opens the form of the keeper anew and fills it.
func (r *rig) try(b *claimstest.Browser, user, password string) *claimstest.Page {
	r.t.Helper()
	return r.submit(b, r.form(b, "source=corp&rd=/x"), user, password)
}

// must says what status a try ends with.
func must(t testing.TB, what string, page *claimstest.Page, status int) {
	t.Helper()
	if page.Status != status {
		t.Fatalf("%s: %d, want %d: %s", what, page.Status, status, page.Body)
	}
}

// script posts a form as a program does.
func (r *rig) script(path string, values url.Values, edit func(*http.Request)) *http.Response {
	r.t.Helper()
	req, err := http.NewRequest("POST", r.server.URL+path, strings.NewReader(values.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if edit != nil {
		edit(req)
	}
	res, err := r.client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

func proxyEntry(k *keeper) proxy.SourceEntry {
	return proxy.SourceEntry{Source: k, Label: "At " + k.name}
}

func sessionsOf(t testing.TB, r *rig, user string) []groups.Session {
	t.Helper()
	u, err := r.store.UserByName(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.store.Sessions(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
