package kaltura

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/groupgate/groupgate/groups/groupstest"
)

const (
	secret  = "a-secret-of-the-partner"
	partner = 4711
)

// idForm is the expression that Kaltura holds ids to.
var idForm = regexp.MustCompile(`^[A-Za-z0-9,!#$%&'*+?^_` + "`" + `{|}~.@-]{1,320}$`)

// account answers as Kaltura's API v3 is documented to: actions as forms, JSON,
// and exceptions with status 200.
type account struct {
	t    *testing.T
	fold bool // as its database compares ids

	mu       sync.Mutex
	users    []user
	members  [][2]string // person, group
	sessions []string    // that are valid
	started  int
	idle     bool // says that it did, and does nothing
	asked    []string
	before   func(action string) // what somebody else does just before
}

func (a *account) same(x, y string) bool { return x == y || a.fold && strings.EqualFold(x, y) }

func (a *account) find(id string) *user {
	for i := range a.users {
		if a.same(a.users[i].ID, id) {
			return &a.users[i]
		}
	}
	return nil
}

type exception struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Type    string            `json:"objectType"`
	Args    map[string]string `json:"args"`
}

type made struct {
	user
	Object string `json:"objectType"`
}

type membership struct {
	User   string `json:"userId"`
	Group  string `json:"groupId"`
	Status int    `json:"status"`
	Object string `json:"objectType"`
}

type list struct {
	Objects []membership `json:"objects"`
	Total   int          `json:"totalCount"`
	Object  string       `json:"objectType"`
}

func (a *account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Method != http.MethodPost || r.URL.RawQuery != "" || r.ParseForm() != nil || r.PostForm.Get("format") != "1" {
		a.t.Errorf("%s %s %v", r.Method, r.URL, r.PostForm)
	}
	form := func(k string) string { return r.PostForm.Get(k) }
	action := strings.TrimPrefix(r.URL.Path, "/api_v3/service/")
	a.asked = append(a.asked, action)
	answer := a.answer(action, form)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (a *account) answer(action string, form func(string) string) any {
	fail := func(code string) any {
		// As it does, it repeats what it was told.
		return exception{Code: code, Message: code + " " + form("ks") + form("secret"), Type: "KalturaAPIException", Args: map[string]string{"KSID": form("ks")}}
	}
	if action == "session/action/start" {
		if form("secret") != secret || form("partnerId") != strconv.Itoa(partner) || form("type") != "2" {
			return fail("START_SESSION_ERROR")
		}
		a.started++
		ks := fmt.Sprintf("a-session-%d", a.started)
		a.sessions = append(a.sessions, ks)
		return ks
	}
	if form("ks") == "" {
		return fail("MISSING_KS")
	}
	if !slices.Contains(a.sessions, form("ks")) {
		return fail("INVALID_KS")
	}
	if a.before != nil {
		a.before(action)
	}
	switch action {
	case "session/action/get":
		return map[string]int{"partnerId": partner, "sessionType": 2}
	case "user/action/get":
		if u := a.find(form("userId")); u != nil {
			return made{*u, "KalturaUser"}
		}
		return fail("INVALID_USER_ID")
	case "user/action/add":
		return a.add(form, fail)
	case "groupUser/action/add":
		return a.join(form("groupUser:userId"), form("groupUser:groupId"), fail)
	case "groupUser/action/delete":
		return a.leave(form("userId"), form("groupId"), fail)
	case "groupUser/action/list":
		return a.list(form, fail)
	}
	return fail("SERVICE_DOES_NOT_EXISTS")
}

func (a *account) add(form func(string) string, fail func(string) any) any {
	id := form("user:id")
	kind, err := strconv.Atoi(form("user:type"))
	if err != nil || !idForm.MatchString(id) {
		return fail("INVALID_FIELD_VALUE")
	}
	if a.find(id) != nil {
		return fail("DUPLICATE_USER_BY_ID")
	}
	a.users = append(a.users, user{id, kind})
	return made{user{id, kind}, "KalturaUser"}
}

func (a *account) join(person, group string, fail func(string) any) any {
	u, g := a.find(person), a.find(group)
	if u == nil || u.Type != typePerson {
		return fail("USER_NOT_FOUND")
	}
	if g == nil || g.Type != typeGroup {
		return fail("GROUP_NOT_FOUND")
	}
	m := [2]string{u.ID, g.ID}
	if slices.Contains(a.members, m) {
		return fail("GROUP_USER_ALREADY_EXISTS")
	}
	if !a.idle {
		a.members = append(a.members, m)
	}
	return membership{u.ID, g.ID, 0, "KalturaGroupUser"}
}

func (a *account) leave(person, group string, fail func(string) any) any {
	u, g := a.find(person), a.find(group)
	if u == nil {
		return fail("INVALID_USER_ID")
	}
	if g == nil {
		return fail("GROUP_NOT_FOUND")
	}
	i := slices.Index(a.members, [2]string{u.ID, g.ID})
	if i < 0 {
		return fail("GROUP_USER_DOES_NOT_EXISTS")
	}
	if !a.idle {
		a.members = slices.Delete(a.members, i, i+1)
	}
	return nil
}

func (a *account) list(form func(string) string, fail func(string) any) any {
	person := form("filter:userIdEqual")
	if person == "" {
		return fail("PROPERTY_VALIDATION_CANNOT_BE_NULL")
	}
	size, _ := strconv.Atoi(form("pager:pageSize"))
	page, _ := strconv.Atoi(form("pager:pageIndex"))
	size = min(size, 500)
	var all []membership
	for _, m := range a.members {
		if a.same(m[0], person) {
			all = append(all, membership{m[0], m[1], 0, "KalturaGroupUser"})
		}
	}
	from := min((page-1)*size, len(all))
	return list{all[from:min(from+size, len(all))], len(all), "KalturaGroupUserListResponse"}
}

// holds and put are other hands than the target's.
func (a *account) holds(person string) (in []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.members {
		if m[0] == person {
			in = append(in, m[1])
		}
	}
	slices.Sort(in)
	return in
}

func (a *account) put(person, group string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, kind := range map[string]int{person: typePerson, group: typeGroup} {
		if a.find(id) == nil {
			a.users = append(a.users, user{id, kind})
		}
	}
	a.members = append(a.members, [2]string{person, group})
}

// expire ends every session.
func (a *account) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions = nil
}

// count says how often an action was asked for.
func (a *account) count(action string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.asked {
		if one == action {
			n++
		}
	}
	return n
}

func open(t *testing.T, a *account) groupstest.Remote {
	t.Helper()
	a.t = t
	l := groupstest.NewLiar(t, a)
	target := New(Config{URL: l.URL + "/api_v3/", PartnerID: partner, AdminSecret: secret})
	t.Cleanup(func() { _ = target.Close() })
	return groupstest.Remote{Target: target, Liar: l, Secret: secret, Holds: a.holds, Put: a.put, Takes: idForm.MatchString}
}
