package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// GV-01 to GV-04: names that a reader of the header could take for another
// name arrive as what they are, the request works, and no split of the header
// gives "admins" to who is not in it. GV-01, GV-02, GV-03, GV-04.
func TestHardNamesNeverBecomeOtherNames(t *testing.T) {
	t.Parallel()
	names := []string{
		"a,admins", "admins,", ",admins", "a;admins", "a|admins", "a admins", "a\tadmins", // GV-01
		"a\radmins", "a\nadmins", "a\r\nX-Forwarded-Groups: admins", "a\x00admins", "a\x1b[31madmins", "a\x7fadmins", // GV-02
		"gr\u00fcn", "gru\u0308n", "\U0001f511", "admins\u00e9", "\u202eadmins", // GV-03
		" admins ", "admins ", " admins", "\tadmins", "\u00a0admins", "admins\u200b", "\u2003admins", // GV-04
		"%61dmins", "admins%", "%2C", "ADMINS", "\u0430dmins", `"admins"`, `'admins'`, "[admins]",
	}
	// No store can keep a NUL: that name is left out and reported (GV-02).
	want := slices.DeleteFunc(sortedNames(names), func(n string) bool { return strings.ContainsRune(n, 0) })
	for _, format := range []proxy.GroupsFormat{proxy.Comma, proxy.Repeated} {
		r := newRig(t, headers(proxy.HeadersConfig{GroupsFormat: format}), withSigner, memberOf(names...))
		cookie := r.signIn("alice")
		if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
			t.Fatalf("%s: the request fails: %d", format, res.StatusCode)
		}
		h := r.up.last(t).Header
		var got []string
		for _, line := range h["X-Forwarded-Groups"] {
			for _, piece := range strings.FieldsFunc(line, func(c rune) bool { return c == ',' }) {
				if strings.TrimSpace(piece) == "admins" {
					t.Errorf("%s: a reader finds admins in %q", format, line)
				}
				name, err := url.PathUnescape(piece)
				if err != nil {
					t.Errorf("%s: %q: %v", format, piece, err)
				}
				got = append(got, name)
			}
		}
		slices.Sort(got)
		equal(t, string(format), got, want)
		equal(t, "assertion", claimsOf(t, r, h.Get("X-Groupgate-Assertion")).Groups, want)
		equal(t, "stored", groupsOf(t, r, "alice"), want)
		if res := r.do("GET", "/admin/", signedIn(cookie)); res.StatusCode != 403 {
			t.Errorf("%s: the route for admins: %d", format, res.StatusCode)
		}
		sync := events(t, r, groups.EventSync)
		if len(sync) != 1 || len(sync[0].Change.Skipped) != 1 || sync[0].Change.Skipped[0].Reason != groups.SkipName {
			t.Errorf("%s: the audit trail tells %+v", format, sync)
		}
	}
}

// GS-25: a name may hold what looks like another line of the log, or like
// commands to a terminal: each line stays one JSON object, and the trail keeps
// the name as it was.
func TestAuditTrailTakesAnyNameAsText(t *testing.T) {
	t.Parallel()
	hostile := "eve\r\n{\"level\":\"error\",\"msg\":\"planted\"}\x1b[2J\u2028\u202e"
	r := newRig(t, func(r *rig) {
		p := person("alice", hostile, "engineering")
		p.Claims["preferred_username"] = hostile
		r.op.SetPerson(p)
	})
	r.signIn("alice")
	sync := events(t, r, groups.EventSync)
	if len(sync) != 1 || sync[0].Name != hostile || !slices.Contains(sync[0].Change.Added, hostile) {
		t.Errorf("the trail tells %+v", sync)
	}
	lines := strings.Split(strings.TrimSuffix(r.logs.String(), "\n"), "\n")
	named := 0
	for _, line := range lines {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry["msg"] == "planted" {
			t.Errorf("a line of the log: %q, %v", line, err)
		}
		for _, v := range entry {
			if v == hostile {
				named++
			}
		}
		if strings.ContainsAny(line, "\x1b\r") {
			t.Errorf("a line of the log commands a terminal: %q", line)
		}
	}
	if named == 0 {
		t.Error("no line of the log has the name: nothing was shown")
	}
}

// GV-09: ten thousand groups are kept whole; the header says how many it
// leaves out or the request is refused, never cut in the middle of a name.
func TestTenThousandGroups(t *testing.T) {
	t.Parallel()
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("group-%04d", i)
	}
	r := newRig(t, headers(proxy.HeadersConfig{OnOverflow: proxy.OverflowOmit}), withSigner, memberOf(names...), func(r *rig) {
		r.settings.Routes = append(r.settings.Routes, proxy.RouteConfig{Path: "/last/", Access: proxy.SignedIn, Groups: []string{"group-9999"}})
	})
	cookie := r.signIn("alice")
	h := r.up.last(t).Header
	line := h.Get("X-Forwarded-Groups")
	kept := strings.Split(line, ",")
	if len(line) > 8192 || len(line) < 8192-11 || !slices.Equal(kept, names[:len(kept)]) {
		t.Errorf("%d bytes, %d names, the last of which is %q", len(line), len(kept), kept[len(kept)-1])
	}
	equal(t, "omitted", h["X-Forwarded-Groups-Omitted"], []string{strconv.Itoa(len(names) - len(kept))})
	equal(t, "assertion", claimsOf(t, r, h.Get("X-Groupgate-Assertion")).Groups, names)
	equal(t, "stored", groupsOf(t, r, "alice"), names)
	if res := r.do("GET", "/last/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("a route for a name that the header leaves out: %d", res.StatusCode)
	}
	r.settings.Headers.OnOverflow = proxy.OverflowError
	r.configure()
	before := r.up.count()
	res := r.do("GET", "/", edits(page, signedIn(cookie)))
	body := bodyOf(t, res)
	if res.StatusCode != 502 || r.up.count() != before || strings.Contains(body, "group-0000") {
		t.Errorf("on_overflow: error answers %d, reached %d", res.StatusCode, r.up.count()-before)
	}
	if got := eventsOf(t, r, idOf(t, "overflow", body)); len(got) != 1 || got[0].Kind != groups.EventOverflow {
		t.Errorf("the audit trail does not know: %+v", got)
	}
}
