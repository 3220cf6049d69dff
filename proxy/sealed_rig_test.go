package proxy_test

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// stateless makes a rig one without a directory.
func stateless(r *rig) {
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(r.logs), zapcore.DebugLevel)
	r.groups.Sync.Enabled = false
	r.settings.Headers.MaxBytes = 1 << 20
	r.dir, r.proxy = r.pod(zap.New(core))
	certificates := r.server.TLS.Certificates
	r.server.Close()
	r.server = httptest.NewUnstartedServer(r.proxy)
	r.server.TLS = &tls.Config{Certificates: certificates}
	r.server.StartTLS()
	r.t.Cleanup(r.server.Close)
	r.settings.PublicURL = r.server.URL
}

// pod is a process that shares nothing with the others but the settings. It is
// not configured yet.
func (r *rig) pod(log *zap.Logger) (*groups.Directory, *proxy.Proxy) {
	dir := groups.NewDirectory(groups.Options{Log: log, Audit: log, Now: r.clock.Now})
	return dir, proxy.New(proxy.Options{Directory: dir, Log: log, Access: log, Now: r.clock.Now})
}

// otherPod is a pod with the rig's settings, or changed ones.
func (r *rig) otherPod(change ...func(*proxy.Settings)) *proxy.Proxy {
	r.t.Helper()
	dir, p := r.pod(zap.NewNop())
	set := r.settings
	for _, c := range change {
		c(&set)
	}
	if err := dir.Configure(r.t.Context(), r.groups); err != nil {
		r.t.Fatal(err)
	}
	if err := p.Configure(set); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// askAt is a script's request to a pod, with what the upstream got when it got
// there.
func (r *rig) askAt(p *proxy.Proxy, cookie string, edit ...func(*http.Request)) (*httptest.ResponseRecorder, *seen) {
	before := r.up.count()
	w := httptest.NewRecorder()
	req := httptest.NewRequest("GET", "/reports", nil)
	req.Host = "127.0.0.1:" + r.port()
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	for _, e := range edit {
		e(req)
	}
	p.ServeHTTP(w, req)
	if r.up.count() == before {
		return w, nil
	}
	got := r.up.last(r.t)
	return w, &got
}

// after is a Cookie header as the browser has it after an answer.
func after(cookie string, w *httptest.ResponseRecorder) string {
	jar := map[string]string{}
	var order []string
	note := func(name, value string) {
		if _, there := jar[name]; !there {
			order = append(order, name)
		}
		jar[name] = value
	}
	for pair := range strings.SplitSeq(cookie, "; ") {
		name, value, _ := strings.Cut(pair, "=")
		note(name, value)
	}
	for _, c := range w.Result().Cookies() {
		if note(c.Name, c.Value); c.MaxAge < 0 {
			jar[c.Name] = ""
		}
	}
	var out []string
	for _, name := range order {
		if jar[name] != "" {
			out = append(out, name+"="+jar[name])
		}
	}
	return strings.Join(out, "; ")
}

// sessionOf is the session's cookies of a Cookie header, in order.
func sessionOf(cookie string) []string {
	var out []string
	for pair := range strings.SplitSeq(cookie, "; ") {
		name, value, _ := strings.Cut(pair, "=")
		rest, ours := strings.CutPrefix(name, "__Host-groupgate")
		if ours && (rest == "" || len(rest) == 2) {
			out = append(out, value)
		}
	}
	return out
}

// asCookies is a Cookie header of a session's pieces.
func asCookies(pieces ...string) string {
	var out []string
	for i, p := range pieces {
		name := "__Host-groupgate"
		if i > 0 {
			name += "-" + strconv.Itoa(i)
		}
		if p != "" {
			out = append(out, name+"="+p)
		}
	}
	return strings.Join(out, "; ")
}

// manyGroups are names that do not compress into nothing: ids, as Entra ID
// sends them.
func manyGroups(n int) []string {
	out := make([]string, n)
	for i := range out {
		h := sha256.Sum256([]byte(strconv.Itoa(i)))
		out[i] = fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
	}
	return out
}

func inGroups(subject string, n int) func(*rig) {
	return func(r *rig) { r.op.SetPerson(person(subject, manyGroups(n)...)) }
}

// pieceTotal is what a browser holds of one session.
func pieceTotal(b *claimstest.Browser, address string) (n, largest int) {
	for _, c := range b.Cookies(address) {
		if strings.HasPrefix(c.Name, "__Host-groupgate") && len(sessionOf(c.Name+"=x")) == 1 {
			n++
			largest = max(largest, len(c.Name)+len(c.Value))
		}
	}
	return n, largest
}
