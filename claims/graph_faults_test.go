package claims_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// GS-05: whatever Graph does wrong, the login goes on and the claim is
// unknown, with a reason in our words; the same Graph, honest again, is heard.
func TestGraphFaultsStayUnknown(t *testing.T) {
	t.Parallel()
	status := func(code int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	token := func(h http.HandlerFunc) func(*claimstest.GraphKnobs) {
		return func(k *claimstest.GraphKnobs) { k.TokenHandler = h }
	}
	page := func(h http.HandlerFunc) func(*claimstest.GraphKnobs) {
		return func(k *claimstest.GraphKnobs) { k.PageHandler = h }
	}
	entry := func(change func(map[string]any)) func(*claimstest.GraphKnobs) {
		return func(k *claimstest.GraphKnobs) {
			k.Page = func(_ int, answer map[string]any) { change(answer["value"].([]any)[1].(map[string]any)) }
		}
	}
	whole := func(change func(map[string]any)) func(*claimstest.GraphKnobs) {
		return func(k *claimstest.GraphKnobs) { k.Page = func(_ int, answer map[string]any) { change(answer) } }
	}
	body := func(change func([]byte) []byte) func(*claimstest.GraphKnobs) {
		return func(k *claimstest.GraphKnobs) { k.Body = func(_ int, b []byte) []byte { return change(b) } }
	}
	redirect := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere?canary", http.StatusTemporaryRedirect)
	}
	for name, c := range map[string]struct {
		lie func(*claimstest.GraphKnobs)
		why string
	}{
		"token: 400":           {token(status(400, `{"error":"invalid_client","error_description":"canary"}`, "Content-Type", "application/json")), "token: status 400, invalid_client"},
		"token: 401, foreign":  {token(status(401, `{"error":"canary"}`, "Content-Type", "application/json")), "token: status 401, an unregistered error code"},
		"token: 500, HTML":     {token(status(500, `<html>canary`)), "token: status 500, no error code"},
		"token: 429":           {token(status(429, ``, "Retry-After", "canary")), "token: status 429, no error code"},
		"token: OI-28 307":     {token(redirect), "token: status 307, no error code"},
		"token: OI-28 hangs":   {token(claimstest.Hang), "token: timeout"},
		"token: HTML":          {token(status(200, `<html>canary`, "Content-Type", "text/html")), "token: the answer has no token"},
		"token: none":          {token(status(200, `{"canary":1}`, "Content-Type", "application/json")), "token: the answer has no token"},
		"token: PX-22 endless": {token(endless), "token: the answer has no token"},
		"401":                  {page(status(401, `canary`)), "page 1: status 401"},
		"403":                  {page(status(403, `canary`)), "page 1: status 403"},
		"404":                  {page(status(404, `canary`)), "page 1: status 404"},
		"429":                  {page(status(429, `canary`)), "page 1: status 429"},
		"500":                  {page(status(500, `canary`)), "page 1: status 500"},
		"503":                  {page(status(503, `canary`, "Retry-After", "-5")), "page 1: status 503"},
		"202":                  {page(status(202, `{"value":[]}`)), "page 1: status 202"},
		"OI-28 redirect":       {page(redirect), "page 1: status 307"},
		"OI-28 hangs":          {page(claimstest.Hang), "page 1: timeout"},
		"PX-22 endless":        {page(endless), "page 1: the answer is longer than 1048576 bytes"},
		"breaks off":           {page(status(200, `{"value":[`, "Content-Length", "100")), "page 1: the answer broke off"},
		"HTML":                 {page(status(200, `<html>canary`)), "page 1: the answer is not one unambiguous JSON object"},
		"empty":                {page(status(200, ``)), "page 1: the answer is not one unambiguous JSON object"},
		"a list":               {page(status(200, `["canary"]`)), "page 1: the answer is not one unambiguous JSON object"},
		"null":                 {page(status(200, `null`)), "page 1: the answer is not one unambiguous JSON object"},
		"cut off":              {body(func(b []byte) []byte { return b[:len(b)/2] }), "page 1: the answer is not one unambiguous JSON object"},
		"more behind":          {body(func(b []byte) []byte { return append(b, `{"value":[]}`...) }), "page 1: the answer is not one unambiguous JSON object"},
		"two values":           {body(func(b []byte) []byte { return append([]byte(`{"value":[],`), b[1:]...) }), "page 1: the answer is not one unambiguous JSON object"},
		"VALUE beside value":   {whole(set("VALUE", []any{})), "page 1: the answer is not one unambiguous JSON object"},
		"only Value":           {whole(func(m map[string]any) { m["Value"] = m["value"]; delete(m, "value") }), "page 1: the answer has no list of groups"},
		"value missing":        {whole(del("value")), "page 1: the answer has no list of groups"},
		"value null":           {whole(set("value", nil)), "page 1: the answer has no list of groups"},
		"value an object":      {whole(set("value", map[string]any{"id": "canary"})), "page 1: the answer has no list of groups"},
		"an entry null":        {whole(set("value", []any{nil})), "page 1: an entry is no group with a GUID"},
		"an entry text":        {whole(set("value", []any{guid(1)})), "page 1: an entry is no group with a GUID"},
		"id missing":           {entry(del("id")), "page 1: an entry is no group with a GUID"},
		"id null":              {entry(set("id", nil)), "page 1: an entry is no group with a GUID"},
		"id a number":          {entry(set("id", 7)), "page 1: an entry is no group with a GUID"},
		"id a name":            {entry(set("id", "canary")), "page 1: an entry is no group with a GUID"},
		"id nearly a GUID":     {entry(set("id", strings.Replace(guid(1), "-", "/", 1))), "page 1: an entry is no group with a GUID"},
		"id too long":          {entry(set("id", guid(1)+"a")), "page 1: an entry is no group with a GUID"},
		"a role":               {entry(set("@odata.type", "#microsoft.graph.directoryRole")), "page 1: an entry is no group with a GUID"},
		"security hidden":      {entry(set("securityEnabled", nil)), "page 1: a group does not say whether it is a security group: is GroupMember.Read.All granted?"},
		"security missing":     {entry(del("securityEnabled")), "page 1: a group does not say whether it is a security group: is GroupMember.Read.All granted?"},
		"security text":        {entry(set("securityEnabled", "true")), "page 1: a group does not say whether it is a security group: is GroupMember.Read.All granted?"},
		"next link a number":   {whole(set("@odata.nextLink", 1)), "page 1: the link to the next page is no text"},
		"next link null":       {whole(set("@odata.nextLink", nil)), "page 1: the link to the next page is no text"},
		"next link empty":      {whole(set("@odata.nextLink", "")), "page 1: the link to the next page is no text"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gr := newGraphRig(t, func(s *setup, _ *claimstest.GraphOptions) { s.src.Client.Timeout = 3 * time.Second })
			gr.graph.Lie(c.lie)
			for when, got := range gr.states(t, "groups") {
				if got.State != claims.Unknown || got.Why != "overage, and Microsoft Graph did not help: "+c.why {
					t.Errorf("%s: %v %q, want %q", when, got.State, got.Why, c.why)
				}
			}
			if warned := gr.logs.FilterMessageSnippet("Microsoft Graph").Len(); warned != 2 {
				t.Errorf("%d warnings of two faults", warned)
			}
			gr.graph.Honest()
			gr.wantGroups(t, idsOf(securityGroups(3)))
		})
	}
}

// A link to the next page is followed on the origin and path of the first and
// nowhere else; pages that never end are not read for ever. GS-05: what was
// read until then is not taken for the whole.
func TestGraphNextLinksThatLie(t *testing.T) {
	t.Parallel()
	const elsewhere, endless = "page 1: the link to the next page leads elsewhere", "more than 200 pages"
	for name, c := range map[string]struct {
		link func(gr *graphRig, page int) string
		why  string
	}{
		"another origin":   {func(gr *graphRig, _ int) string { return gr.canaryURL() + "/v1.0/users/x" }, elsewhere},
		"metadata service": {func(*graphRig, int) string { return "http://169.254.169.254/v1.0/users/x" }, elsewhere},
		"another port":     {func(gr *graphRig, _ int) string { return gr.graph.URL + "0/v1.0/users/x" }, elsewhere},
		"a user": {func(gr *graphRig, _ int) string {
			return strings.Replace(gr.graph.URL, "//", "//canary@", 1) + "/v1.0/users/x"
		}, elsewhere},
		"host as user": {func(gr *graphRig, _ int) string { return gr.graph.URL + "@canary.example/v1.0/users/x" }, elsewhere},
		"https": {func(gr *graphRig, _ int) string {
			return strings.Replace(gr.graph.URL, "http", "https", 1) + "/v1.0/users/x"
		}, elsewhere},
		"another path":     {func(gr *graphRig, _ int) string { return gr.graph.URL + "/beta/users/x" }, elsewhere},
		"the token's path": {func(gr *graphRig, _ int) string { return gr.graph.TokenURL() }, elsewhere},
		"dots":             {func(gr *graphRig, _ int) string { return gr.graph.URL + "/v1.0/users/../../canary" }, elsewhere},
		"escaped dots":     {func(gr *graphRig, _ int) string { return gr.graph.URL + "/v1.0/users/%2e%2e/canary" }, elsewhere},
		"relative":         {func(*graphRig, int) string { return "/v1.0/users/x" }, elsewhere},
		"without scheme":   {func(gr *graphRig, _ int) string { return strings.TrimPrefix(gr.graph.URL, "http:") + "/v1.0/users/x" }, elsewhere},
		"a script":         {func(*graphRig, int) string { return "javascript:canary" }, elsewhere},
		"no address":       {func(*graphRig, int) string { return "http://[canary" }, "page 1: the link to the next page is no address"},
		"a fragment":       {func(gr *graphRig, _ int) string { return gr.graph.URL + "/v1.0/users/x#canary" }, elsewhere},
		"a loop":           {func(gr *graphRig, _ int) string { return gr.graph.URL + gr.first() }, "page 2: it was read before"},
		"pages without end": {func(gr *graphRig, page int) string {
			return gr.graph.URL + gr.first() + fmt.Sprintf("&$skiptoken=%d", page)
		}, endless},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gr := newGraphRig(t)
			if c.why == endless {
				gr.graph.SetGroups(aliceOID, securityGroups(300)...)
			}
			pages := 0
			gr.graph.Lie(func(k *claimstest.GraphKnobs) {
				k.Page = func(_ int, answer map[string]any) {
					pages++
					answer["value"] = []any{}
					answer["@odata.nextLink"] = c.link(gr, pages)
				}
			})
			id, _ := gr.mustLogin(t)
			got := id.Claims.Resolve("groups")
			why := strings.TrimPrefix(got.Why, "overage, and Microsoft Graph did not help: ")
			if got.State != claims.Unknown || why != c.why {
				t.Errorf("%v %q, want %q", got.State, why, c.why)
			}
			if strings.Contains(got.Why, "canary") {
				t.Errorf("the reason repeats foreign text: %q", got.Why)
			}
			gr.graph.Honest()
			gr.graph.SetGroups(aliceOID, securityGroups(250)...)
			gr.wantGroups(t, idsOf(securityGroups(250)))
		})
	}
}

// first is the path and query of the first page.
func (gr *graphRig) first() string {
	return "/v1.0/users/" + aliceOID + "/transitiveMemberOf/microsoft.graph.group?$select=id,securityEnabled&$top=999"
}

func (gr *graphRig) canaryURL() string {
	endpoint := gr.marked["_claim_sources"].(map[string]any)["src1"].(map[string]any)["endpoint"].(string)
	return endpoint[:strings.Index(endpoint, "/users/")]
}

// A second page that fails spoils the first.
func TestGraphPartOfAListIsNone(t *testing.T) {
	t.Parallel()
	gr := newGraphRig(t)
	gr.graph.SetGroups(aliceOID, securityGroups(250)...)
	gr.graph.Lie(func(k *claimstest.GraphKnobs) {
		k.Body = func(page int, b []byte) []byte {
			if page == 2 {
				return b[:10]
			}
			return b
		}
	})
	for when, got := range gr.states(t, "groups") {
		if got.State != claims.Unknown || !strings.Contains(got.Why, "page 2: ") {
			t.Errorf("%s: %+v", when, got)
		}
	}
	gr.graph.Honest()
	gr.wantGroups(t, idsOf(securityGroups(250)))
}

// More groups than a claim may have are not counted to the end.
func TestGraphGroupsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	t.Parallel()
	gr := newGraphRig(t, func(s *setup, g *claimstest.GraphOptions) { s.src.Client.Timeout, g.PageSize = 0, 9000 })
	gr.graph.SetGroups(aliceOID, securityGroups(claims.MaxValues+1)...)
	id, _ := gr.mustLogin(t)
	if got := id.Claims.Resolve("groups"); got.State != claims.Unknown || !strings.HasSuffix(got.Why, ": more than 50000 groups") {
		t.Errorf("%v %s", got.State, got.Why)
	}
	gr.graph.SetGroups(aliceOID, securityGroups(claims.MaxValues)...)
	gr.wantGroups(t, idsOf(securityGroups(claims.MaxValues)))
}

// FuzzGraphPage: whatever a page says, the token goes to no other origin than
// Graph's, and what is answered is ids, each once.
func FuzzGraphPage(f *testing.F) {
	for _, s := range []string{
		`{"value":[]}`, `{"value":[{"id":"` + aliceOID + `","securityEnabled":true}]}`, `{"value":null}`, `[]`, ``, `{"value":[null]}`,
		`{"value":[],"@odata.nextLink":"https://graph.example.com/v1.0/users/x"}`,
		`{"value":[],"@odata.nextLink":"https://graph.example.com@evil.example/v1.0/users/x"}`,
		`{"value":[],"@odata.nextLink":"https://graph.example.com\\@evil.example/v1.0/users/x"}`,
		`{"value":[],"@odata.nextLink":"//evil.example/v1.0/users/x"}`,
		`{"value":[],"@odata.nextLink":"https://graph.example.com:443/v1.0/users/x"}`,
		`{"value":[],"@odata.nextLink":"https://graph.example.com/v1.0/users/..%2f..%2f"}`,
	} {
		f.Add([]byte(s))
	}
	cfg := claims.GraphConfig{Tenant: "T", ClientID: "x", ClientSecret: "s", URL: "https://graph.example.com", TokenURL: "https://login.example.com/token"}
	f.Fuzz(func(t *testing.T, page []byte) {
		wire := &recorded{page: page}
		ids, err := claims.NewGraph(cfg, &http.Client{Transport: wire}, nil).Groups(t.Context(), aliceOID)
		for i, host := range wire.hosts {
			if want := map[bool]string{true: "https://login.example.com", false: "https://graph.example.com"}[i == 0]; host != want {
				t.Fatalf("%q led to %s", page, host)
			}
		}
		if err != nil && ids != nil {
			t.Fatalf("%q: ids beside an error", page)
		}
		seen := map[string]bool{}
		for _, id := range ids {
			if len(id) != 36 || seen[id] {
				t.Fatalf("%q gave %q", page, ids)
			}
			seen[id] = true
		}
	})
}
