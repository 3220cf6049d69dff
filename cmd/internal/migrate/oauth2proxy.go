package migrate

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// OAuth2Proxy translates a configuration of oauth2-proxy. name is for messages.
// The error is a [Fault]: the text is not such a configuration.
func OAuth2Proxy(name string, text []byte) (*Result, error) {
	s, err := oauth2.read(name, text)
	if err != nil {
		return nil, err
	}
	return fromOAuth2Proxy(s), nil
}

func fromOAuth2Proxy(s *settings) *Result {
	m := &oauth2Migration{migration: migration{product: oauth2, settings: s}}
	m.listener()
	m.upstreams()
	m.session()
	m.source()
	m.identity()
	m.rules()
	m.headers()
	m.restricted()
	m.routes()
	m.proxies()
	m.need("tell the provider the new redirect URI: PUBLIC_URL%s/callback/%s", m.prefix, m.id)
	m.need("people sign in once more, and groups are kept from then on")
	return m.result()
}

type oauth2Migration struct {
	migration
	prefix string // of groupgate's own pages
	id     string // name of the source
	kind   string // of the provider
	client string
	routed []route // by path, in the order of the file
	served bool    // something is proxied, not only asked about
	// undecided is set where who may enter cannot be said by what is here: then
	// nobody may.
	undecided bool
}

func (m *oauth2Migration) listener() {
	cert, tls := m.take("tls_cert_file")
	key, _ := m.take("tls_key_file")
	http, plain := m.take("http_address")
	https, secure := m.take("https_address")
	switch {
	case tls:
		address, from := ":443", m.usual()
		if secure {
			address, from = strings.TrimPrefix(https.text(), "https://"), https.from()
		}
		m.out.line(0, "listen: "+quoted(address), from)
	case !plain:
		m.out.line(0, `listen: "127.0.0.1:4180"`, m.usual())
	default:
		m.out.line(0, "listen: "+quoted(listenAddress(http.text())), http.from())
	}
	m.publicURL()
	if tls {
		m.out.line(0, "tls: {cert_file: "+quoted(cert.text())+", key_file: "+quoted(key.text())+"}", cert.from())
	}
	m.prefix = "/oauth2"
	from := m.usual()
	if s, ok := m.take("proxy_prefix"); ok {
		m.prefix, from = "/"+strings.Trim(s.text(), "/"), s.from()
	}
	m.out.line(0, "prefix: "+quoted(m.prefix), from)
}

func listenAddress(s string) string {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		return "unix:" + path
	}
	return strings.TrimPrefix(s, "http://")
}

func (m *oauth2Migration) publicURL() {
	s, ok := m.take("redirect_url")
	u, err := url.Parse(s.text())
	if !ok || err != nil || u.Host == "" {
		m.out.line(0, "public_url: "+env("GROUPGATE_PUBLIC_URL"), "to be set: it is never guessed from a request")
		m.need("public_url: no whole redirect_url stands here: set GROUPGATE_PUBLIC_URL to the address people use, such as https://portal.example.com")
		return
	}
	m.out.line(0, "public_url: "+quoted(publicOrigin(u)), s.from())
}

// publicOrigin is https but on loopback: groupgate takes no other.
func publicOrigin(u *url.URL) string {
	if h := u.Hostname(); u.Scheme == "http" && (h == "localhost" || strings.HasPrefix(h, "127.")) {
		return "http://" + u.Host
	}
	return "https://" + u.Host
}

// upstreams are the global one and, below a path, one of a route each. Both
// proxies hand the path on as it came.
func (m *oauth2Migration) upstreams() {
	s, _ := m.take("upstreams")
	global, from := "", ""
	for _, raw := range s.values {
		u, err := url.Parse(raw)
		switch {
		case err != nil || u.User != nil || u.RawQuery != "":
			m.lack(s, "an upstream that is no plain URL: left out")
		case u.Scheme == "unix" && u.Fragment == "":
			global, from = "unix:"+u.Path, s.from()
		case u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "":
			m.static(s, u)
		case u.Path == "" || u.Path == "/":
			global, from = u.Scheme+"://"+u.Host, s.from()
		case !routePath.MatchString(u.Path) || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/."):
			m.lack(s, "an upstream below a path that no route can have: left out")
		default:
			if !strings.HasSuffix(u.Path, "/") {
				m.lack(s, "an upstream of exactly one path becomes one of everything below it as well")
			}
			m.route(u.Path, s.from()).upstream = u.Scheme + "://" + u.Host
		}
	}
	m.served = global != "" || len(m.routed) > 0
	if global == "" {
		global, from = "http://127.0.0.1:8080", "to be changed: no upstream of all paths is named"
		m.need("upstream: none of all paths is named; http://127.0.0.1:8080 stands in its place. As an answer to auth_request alone, groupgate needs no more than %s/auth", m.prefix)
	}
	m.out.line(0, "upstream: "+quoted(global), from)
}

// routePath is a path that reads the same however it is written.
var routePath = regexp.MustCompile(`^/[A-Za-z0-9/._~-]*$`)

func (m *oauth2Migration) static(s setting, u *url.URL) {
	switch {
	case u.Scheme == "static":
		m.lack(s, "a static answer has no counterpart: %s/auth answers 202 by itself", m.prefix)
	case u.Scheme == "file":
		m.lack(s, "files are not served: put a web server there")
	default:
		m.lack(s, "an upstream that is neither http, https nor a socket: left out")
	}
}

func (m *oauth2Migration) session() {
	lifetime, from := "168h", m.usual()
	if s, ok := m.take("cookie_expire"); ok {
		d, err := time.ParseDuration(s.text())
		switch {
		case err != nil || d < 0:
			m.lack(s, "not a duration: the default, 168h, stands in its place")
		case d == 0:
			m.lack(s, "a session that ends with the browser has no counterpart: it ends after 12h, or 1h without a request")
			return
		default:
			lifetime, from = short(d), s.from()
		}
	}
	m.out.line(0, "session:", "")
	m.out.line(1, "lifetime: "+lifetime, from)
	m.out.line(1, "idle: "+lifetime, "no session ended for being idle; the default here is 1h")
	if s, ok := m.take("cookie_refresh"); ok {
		if d, err := time.ParseDuration(s.text()); err == nil && d > 0 {
			m.out.line(1, "refresh: "+short(d), s.from())
		}
	}
}

func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// providers that speak OpenID Connect: their issuer where it is fixed, and our
// preset.
var providers = map[string]struct{ issuer, preset string }{
	"oidc":          {"", ""},
	"keycloak-oidc": {"", "keycloak"},
	"keycloak":      {"", "keycloak"},
	"google":        {"https://accounts.google.com", "google"},
	"azure":         {"", "entra"},
	"entra-id":      {"", "entra"},
	"adfs":          {"", "adfs"},
	"gitlab":        {"https://gitlab.com", ""},
	"cidaas":        {"", ""},
}

func (m *oauth2Migration) source() {
	kind, ok := m.take("provider")
	m.kind = kind.text()
	if !ok {
		m.kind = "google" // as that of oauth2-proxy
	}
	p, known := providers[m.kind]
	m.id = m.kind
	if !known || !regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`).MatchString(m.id) {
		m.id = "oidc"
		m.lack(kind, "speaks OAuth 2.0 without OpenID Connect, or is not known here: put a provider such as Dex or Keycloak in between, and set GROUPGATE_ISSUER")
	}
	m.out.line(0, "sources:", "")
	m.out.line(1, "- name: "+m.id, "part of the redirect URI; from provider")
	if s, ok := m.take("provider_display_name"); ok {
		m.out.line(2, "label: "+quoted(s.text()), s.from())
	}
	m.out.line(2, "oidc:", "")
	m.issuer(p.issuer, known)
	m.out.line(3, "client_id: "+m.clientID(), "")
	m.secretRef()
	if s, ok := m.take("scope"); ok && len(strings.Fields(s.text())) > 0 {
		scopes := strings.Fields(s.text())
		if !slices.Contains(scopes, "openid") {
			scopes = append([]string{"openid"}, scopes...)
		}
		m.out.line(3, "scopes: "+list(scopes), s.from())
	}
	if preset := m.preset(p.preset); preset != "" {
		m.out.line(3, "preset: "+preset, "")
	}
	m.require()
	m.groupClaims()
	if s, ok := m.take("htpasswd_file"); ok {
		m.out.line(1, "- name: local", s.from())
		m.out.line(2, "local: {}", "")
		m.lack(s, "passwords are not taken over: make the people anew with groupgate user add")
	}
}

func (m *oauth2Migration) preset(preset string) string {
	s, _ := m.take("oidc_issuer_url")
	u, err := url.Parse(s.text())
	if preset != "" || err != nil {
		return preset
	}
	for suffix, is := range map[string]string{".okta.com": "okta", ".oktapreview.com": "okta", ".auth0.com": "auth0"} {
		if strings.HasSuffix(u.Hostname(), suffix) {
			return is
		}
	}
	return ""
}

func (m *oauth2Migration) issuer(fixed string, known bool) {
	s, ok := m.take("oidc_issuer_url")
	tenant, named := m.take("azure_tenant")
	switch {
	case ok:
		m.out.line(3, "issuer: "+quoted(s.text()), s.from())
	case m.kind == "azure" && named && tenant.text() != "common" && tenant.text() != "organizations":
		m.out.line(3, "issuer: "+quoted("https://login.microsoftonline.com/"+tenant.text()+"/v2.0"), tenant.from())
	case known && fixed != "":
		m.out.line(3, "issuer: "+fixed, "the usual one of this provider")
	default:
		m.out.line(3, "issuer: "+env("GROUPGATE_ISSUER"), "to be set")
		m.need("sources[0].oidc.issuer: no issuer is named: set GROUPGATE_ISSUER to it, such as https://login.microsoftonline.com/TENANT/v2.0")
	}
}

func (m *oauth2Migration) clientID() string {
	s, ok := m.take("client_id")
	if !ok {
		m.need("sources[0].oidc.client_id: is not in this file: set OAUTH2_PROXY_CLIENT_ID")
		return env("OAUTH2_PROXY_CLIENT_ID")
	}
	m.client = s.text()
	return quoted(s.text())
}

// secretRef refers to the client's secret, wherever it is. It is not printed.
func (m *oauth2Migration) secretRef() {
	if s, ok := m.take("client_secret_file"); ok {
		if ref, fine := file(s.text()); fine {
			m.out.line(3, "client_secret: "+ref, s.from())
			return
		}
	}
	s, ok := m.take("client_secret")
	m.out.line(3, "client_secret: "+env("OAUTH2_PROXY_CLIENT_SECRET"), "not printed")
	if ok {
		m.lack(s, "is a secret and not printed: set OAUTH2_PROXY_CLIENT_SECRET to it, or write ${file:PATH}")
	} else {
		m.need("sources[0].oidc.client_secret: is not in this file: set OAUTH2_PROXY_CLIENT_SECRET")
	}
}

// require asks for the domain of the e-mail address. No address, or a list of
// them, must not become anybody.
func (m *oauth2Migration) require() {
	s, ok := m.take("email_domains")
	if listed, has := m.take("authenticated_emails_file"); has && !slices.Contains(s.values, "*") {
		m.undecided = m.undecided || len(s.values) == 0
		m.lack(listed, "the addresses are not taken over: write a rule for each, {claim: email, value: ADDRESS, group: %s}, and ask for that group in routes", undecided)
	} else if !ok {
		m.need("sources[0].require: no email_domains stand in this file: everybody whom the provider lets in gets in")
	}
	if !ok || slices.Contains(s.values, "*") {
		return
	}
	var domains []string
	for _, d := range s.values {
		if strings.HasPrefix(d, ".") || strings.Contains(d, "*") {
			m.lack(s, "an entry that is for all domains below one has no counterpart: write each domain out")
			continue
		}
		if d != "" && !slices.Contains(domains, strings.ToLower(d)) {
			domains = append(domains, strings.ToLower(d))
		}
	}
	if len(domains) == 0 {
		m.undecided = m.undecided || len(s.values) > 0
		return
	}
	verified := ""
	switch m.kind {
	case "google", "keycloak-oidc", "gitlab": // Entra ID and AD FS do not state it
		if allow, _ := m.take("insecure_oidc_allow_unverified_email"); !allow.on() {
			verified = ", email_verified: true"
		}
	}
	m.out.line(2, "require: {email_domains: "+list(domains)+verified+"}", s.from())
}

// groupsClaim is the claim that carries groups, as groupgate names it: a path
// of names with dots becomes a JSON Pointer.
func (m *oauth2Migration) groupsClaim() (string, setting, bool) {
	s, ok := m.take("oidc_groups_claim")
	if !ok || s.text() == "" {
		return "groups", s, false
	}
	return claim(s.text()), s, true
}

func claim(name string) string {
	if strings.Contains(name, ".") && !strings.Contains(name, "/") {
		return "/" + strings.ReplaceAll(name, ".", "/")
	}
	return name
}

func (m *oauth2Migration) keycloak() bool { return strings.HasPrefix(m.kind, "keycloak") }

func (m *oauth2Migration) groupClaims() {
	name, s, ok := m.groupsClaim()
	all, from := []string{name}, m.usual()
	if ok {
		from = s.from()
	}
	all = append(all, m.roleClaims()...)
	m.out.line(2, "groups: {claims: "+list(all)+"}", from)
}

// roleClaims are where oauth2-proxy finds what it calls role:NAME.
func (m *oauth2Migration) roleClaims() []string {
	switch {
	case m.keycloak() && m.client != "" && !strings.ContainsAny(m.client, "/~"):
		return []string{"/realm_access/roles", "/resource_access/" + m.client + "/roles"}
	case m.keycloak():
		return []string{"/realm_access/roles"}
	}
	return nil
}

// identity keeps what the upstream is told: oauth2-proxy calls the
// subject the user.
func (m *oauth2Migration) identity() {
	user, from := "sub", "as it was; preferred_username reads better, where the upstream may see another name"
	if s, ok := m.take("prefer_email_to_user"); ok && s.on() {
		user, from = "email", s.from()
	} else if s, ok := m.take("user_id_claim"); ok && s.text() != "" && s.text() != "email" {
		user, from = claim(s.text()), s.from()
	}
	m.out.line(0, "identity:", "")
	m.out.line(1, "user: "+quoted(user), from)
	if s, ok := m.take("oidc_email_claim"); ok && s.text() != "" {
		m.out.line(1, "email: "+quoted(claim(s.text())), s.from())
	}
	m.out.line(1, "name: preferred_username", "so that X-Forwarded-Preferred-Username stays what it was")
}

// rules give every group its own name, as oauth2-proxy does.
func (m *oauth2Migration) rules() {
	name, _, _ := m.groupsClaim()
	m.out.line(0, "rules:", "every group keeps its name")
	m.out.line(1, fmt.Sprintf("- {source: %s, claim: %s, any: true}", m.id, quoted(name)), "")
	for _, c := range m.roleClaims() {
		group := "role:$1"
		if strings.HasPrefix(c, "/resource_access/") {
			group = "role:" + strings.ReplaceAll(m.client, "$", "$$") + ":$1"
		}
		m.out.line(1, fmt.Sprintf("- {source: %s, claim: %s, regexp: %q, group: %s}", m.id, quoted(c), "(.+)", quoted(group)), "named as before")
	}
	if m.keycloak() {
		m.need("rules: roles of other clients than this one were groups as well (role:CLIENT:NAME): add a rule with the claim /resource_access/CLIENT/roles for each that is used")
	}
}

func (m *oauth2Migration) headers() {
	x, _ := m.take("set_xauthrequest")
	user, given := m.take("pass_user_headers")
	if x.on() && !m.served {
		m.out.line(0, "headers: {preset: auth-request}", x.from())
		return
	}
	if x.on() {
		m.lack(x, "%s/auth answers with the names under headers, X-Forwarded-User and so on: read those, or set headers.preset: auth-request for all", m.prefix)
	}
	if given && !user.on() {
		m.lack(user, "the upstream always gets the headers: clear them there if it must not")
	}
	if s, ok := m.take("pass_host_header"); ok && !s.on() {
		m.lack(s, "the upstream always gets the Host that the client sent")
	}
}

// restricted finds what kept people out and has no counterpart.
func (m *oauth2Migration) restricted() {
	for _, name := range words(`google_groups github_org github_team github_repo github_users gitlab_projects bitbucket_team bitbucket_repository
		entra_id_allowed_tenants`) {
		if slices.ContainsFunc(m.all, func(s setting) bool { return s.name == name && s.text() != "" }) {
			m.undecided = true
		}
	}
}

func (m *oauth2Migration) proxies() {
	reverse, _ := m.take("reverse_proxy")
	s, ok := m.take("trusted_proxy_ips")
	switch {
	case ok:
		m.out.line(0, "trusted_proxies: "+list(s.values), s.from())
	case reverse.on():
		m.out.line(0, "trusted_proxies: []", "to be set, see reverse_proxy")
		m.lack(reverse, "everybody's X-Forwarded-* counted; here nobody's does until the addresses of your proxies stand in trusted_proxies")
	}
}
