package migrate

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// samlAuth is saml-auth-proxy with the options of November 2025.
var samlAuth = &product{
	name: "saml-auth-proxy", prefix: "SAML_PROXY_",
	lists: words(`attribute_header_mappings authorize_values`),
	bools: words(`allow_idp_initiated auth_verify auth_verify_require_login debug encrypt_jwt sign_requests version`),
	others: words(`attribute_header_wildcard auth_verify_path authorize_attribute backend_url base_url bind cookie_domain cookie_max_age
		cookie_name entity_id idp_ca_path idp_metadata_url initiate_session_path name_id_format name_id_mapping new_auth_webhook_url
		sp_cert_path sp_key_path static_relay_state`),
	means: map[string]string{
		"version":                   "",
		"encrypt_jwt":               "", // the cookie is an opaque id
		"static_relay_state":        "the RelayState is groupgate's own: it ties the answer to the browser that asked",
		"attribute_header_wildcard": "each header is named: write headers.claims for the attributes that are used",
		"cookie_name":               "the cookie is always __Host-groupgate",
		"cookie_domain":             "a cookie is of one host alone; further hosts are routes with host, each with a cookie of its own",
		"idp_ca_path":               "the system's authorities are asked: add yours to them, or name the file in the environment variable SSL_CERT_FILE",
		"new_auth_webhook_url":      "groupgate tells others of memberships, not of logins: see targets, and GET /api/v1/events",
		"initiate_session_path":     "anonymous people get in where a route has access: public; a login begins at PREFIX/sign_in?rd=/",
		"auth_verify":               "PREFIX/auth answers 202, 401 or 403, and PREFIX/auth/redirect leads to the login; name the proxy that asks in trusted_proxies",
		"auth_verify_path":          "the address is PREFIX/auth",
		"auth_verify_require_login": "that is PREFIX/auth/redirect",
	},
}

// SAMLAuthProxy translates a configuration of saml-auth-proxy, of its
// environment or its command line. name is for messages. The error is a
// [Fault]: the text is not such a configuration.
func SAMLAuthProxy(name string, text []byte) (*Result, error) {
	s, err := samlAuth.read(name, text)
	if err != nil {
		return nil, err
	}
	return fromSAMLAuthProxy(s), nil
}

func fromSAMLAuthProxy(s *settings) *Result {
	m := &samlMigration{migration: migration{product: samlAuth, settings: s}}
	m.addresses()
	m.session()
	m.mappings()
	m.source()
	m.tell()
	m.need("give the provider the new metadata, at PUBLIC_URL/_auth/saml/saml/metadata: the address for its answers is another, PUBLIC_URL/_auth/saml/saml/acs")
	m.need("people sign in once more, and groups are kept from then on")
	return m.result()
}

type samlMigration struct {
	migration
	public                    string
	user, email, name, groups headed
	more                      []headed
}

// headed is an attribute and the header it goes into.
type headed struct{ attribute, header, from string }

func (m *samlMigration) addresses() {
	bind, from := ":8080", m.usual()
	if s, ok := m.take("bind"); ok {
		bind, from = listenAddress(s.text()), s.from()
	}
	m.out.line(0, "listen: "+quoted(bind), from)
	s, ok := m.take("base_url")
	if u, err := url.Parse(s.text()); ok && err == nil && u.Host != "" {
		m.public = publicOrigin(u)
		m.out.line(0, "public_url: "+quoted(m.public), s.from())
		if u.Path != "" && u.Path != "/" {
			m.lack(s, "groupgate has a whole host: the path is left out")
		}
	} else {
		m.out.line(0, "public_url: "+env("GROUPGATE_PUBLIC_URL"), "to be set")
		m.need("public_url: no base_url stands here: set GROUPGATE_PUBLIC_URL to the address people use, such as https://portal.example.com")
	}
	s, ok = m.take("backend_url")
	u, err := url.Parse(s.text())
	if !ok || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Host == "" {
		m.out.line(0, "upstream: http://127.0.0.1:8080", "to be changed")
		m.need("upstream: no plain backend_url stands here; http://127.0.0.1:8080 stands in its place")
		return
	}
	m.out.line(0, "upstream: "+quoted(u.Scheme+"://"+u.Host), s.from())
	if u.Path != "" && u.Path != "/" {
		m.lack(s, "requests are forwarded with the path they came with: the path is left out")
	}
}

func (m *samlMigration) session() {
	lifetime, from := "2h", m.usual()
	if s, ok := m.take("cookie_max_age"); ok {
		if d, err := time.ParseDuration(s.text()); err == nil && d > 0 {
			lifetime, from = short(d), s.from()
		} else {
			m.lack(s, "not a duration: the default, 2h, stands in its place")
		}
	}
	m.out.line(0, "session:", "")
	m.out.line(1, "lifetime: "+lifetime, from)
	m.out.line(1, "idle: "+lifetime, "no session ended for being idle; the default here is 1h")
}

// mappings finds out what an attribute is by the header it goes into.
func (m *samlMigration) mappings() {
	s, _ := m.take("attribute_header_mappings")
	for _, pair := range s.values {
		attribute, header, ok := strings.Cut(pair, "=")
		if !ok || attribute == "" || header == "" {
			m.lack(s, "an entry that is not attribute=header: left out")
			continue
		}
		one := headed{attribute, header, s.from()}
		low := strings.ToLower(header)
		place := (*headed)(nil)
		switch {
		case strings.Contains(low, "group") || strings.Contains(low, "role"):
			place = &m.groups
		case strings.Contains(low, "mail"):
			place = &m.email
		case strings.HasSuffix(low, "user") || strings.HasSuffix(low, "username") || strings.HasSuffix(low, "userid"):
			place = &m.user
		case strings.HasSuffix(low, "name"):
			place = &m.name
		}
		if place == nil || place.header != "" {
			m.more = append(m.more, one)
			continue
		}
		*place = one
	}
	if s, ok := m.take("name_id_mapping"); ok && s.text() != "" {
		one := headed{"nameid", s.text(), s.from()}
		if m.user.header == "" {
			m.user = one
		} else {
			m.more = append(m.more, one)
		}
	}
}

func (m *samlMigration) source() {
	m.out.line(0, "sources:", "")
	m.out.line(1, "- name: saml", "part of the addresses that the provider knows")
	m.out.line(2, "saml:", "")
	s, ok := m.take("idp_metadata_url")
	path, isFile := strings.CutPrefix(s.text(), "file://")
	switch {
	case ok && isFile:
		m.out.line(3, "metadata_file: "+quoted(path), s.from())
	case ok:
		m.out.line(3, "metadata_url: "+quoted(s.text()), s.from())
		if strings.HasPrefix(s.text(), "http://") {
			m.lack(s, "metadata is read by https, or from a file: plain http is taken on loopback only")
		}
	default:
		m.out.line(3, "metadata_url: "+env("GROUPGATE_METADATA_URL"), "to be set")
		m.need("sources[0].saml.metadata_url: no idp_metadata_url stands here: set GROUPGATE_METADATA_URL")
	}
	if s, ok := m.take("entity_id"); ok && s.text() != "" {
		m.out.line(3, "entity_id: "+quoted(s.text()), s.from())
	} else if m.public != "" {
		m.out.line(3, "entity_id: "+quoted(m.public+"/saml/metadata"), m.usual())
	}
	m.subject()
	m.pair()
	sign, _ := m.take("sign_requests")
	m.out.line(3, fmt.Sprintf("sign_requests: %t", sign.on()), "the default here is true")
	if s, ok := m.take("allow_idp_initiated"); ok && s.on() {
		m.out.line(3, "idp_initiated: true", s.from())
	}
	m.groupRules()
}

func (m *samlMigration) subject() {
	s, ok := m.take("name_id_format")
	switch s.text() {
	case "unspecified", "email", "persistent", "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent":
		m.out.line(3, "subject: nameid", s.from())
		return
	}
	what := m.usual() + " is a transient NameID, which is another at every login"
	if ok {
		what = s.from() + ": a transient NameID is another at every login"
	}
	attribute := m.user.attribute
	if attribute == "" || attribute == "nameid" {
		attribute = "uid"
	}
	m.out.line(3, "subject: "+quoted(attribute), what)
	m.need("sources[0].saml.subject: %s: name an attribute that tells people apart for good, or have the provider send a persistent NameID and write nameid", what)
}

func (m *samlMigration) pair() {
	for _, f := range []struct{ option, key, usual string }{
		{"sp_key_path", "key_file", "saml-auth-proxy.key"}, {"sp_cert_path", "cert_file", "saml-auth-proxy.cert"},
	} {
		path, from := f.usual, m.usual()
		if s, ok := m.take(f.option); ok && s.text() != "" {
			path, from = s.text(), s.from()
		}
		m.out.line(3, f.key+": "+quoted(path), from)
	}
}

// groupRules make groups of what went into a header of groups, and ask for what
// was asked for.
func (m *samlMigration) groupRules() {
	by, asks := m.take("authorize_attribute")
	wanted, some := m.take("authorize_values")
	var claims, rules []string
	if m.groups.attribute != "" {
		claims = append(claims, m.groups.attribute)
		rules = append(rules, "any: true")
	}
	attribute := by.text()
	if asks && attribute != "" && !slices.Contains(claims, attribute) {
		claims = append(claims, attribute)
		rules = append(rules, "any: true")
	}
	if len(claims) == 0 {
		m.out.line(2, "groups: {claims: []}", "no attribute is a group's")
	} else {
		m.out.line(2, "groups: {claims: "+list(claims)+"}", "")
	}
	m.identity()
	if len(claims) > 0 {
		m.out.line(0, "rules:", "every value is a group of its name")
	}
	for i, c := range claims {
		m.out.line(1, fmt.Sprintf("- {source: saml, claim: %s, %s}", quoted(c), rules[i]), "")
	}
	switch {
	case asks && attribute != "" && len(wanted.values) > 0:
		m.out.line(0, "routes:", "")
		m.out.line(1, "- {path: /, groups: "+list(wanted.values)+"}", wanted.from())
	case asks && attribute != "":
		m.lack(by, "without authorize_values nothing was asked for")
	case some:
		m.lack(wanted, "without authorize_attribute nothing was asked for")
	}
}

func (m *samlMigration) identity() {
	if m.user.attribute == "" {
		m.user.attribute, m.user.from = "nameid", "no attribute goes into a header of the user"
	}
	m.out.line(0, "identity:", "")
	m.out.line(1, "user: "+quoted(m.user.attribute), m.user.from)
	for _, one := range []struct {
		key string
		headed
	}{{"email", m.email}, {"name", m.name}} {
		if one.attribute != "" {
			m.out.line(1, one.key+": "+quoted(one.attribute), one.from)
		}
	}
}

// tell writes what the upstream is told.
func (m *samlMigration) tell() {
	m.out.line(0, "headers:", "")
	for _, one := range []struct {
		key string
		headed
	}{{"user", m.user}, {"email", m.email}, {"name", m.name}, {"groups", m.groups}} {
		if one.header != "" {
			m.out.line(1, one.key+": "+quoted(one.header), one.from)
		}
	}
	m.out.line(1, "groups_format: repeated", "a line for each value, as before")
	if len(m.more) > 0 {
		m.out.line(1, "claims:", "")
		for _, h := range m.more {
			m.out.line(2, quoted(h.header)+": "+quoted(h.attribute), h.from)
		}
	}
	if s, ok := m.take("debug"); ok && s.on() {
		m.out.line(0, "log: {level: debug}", s.from())
	}
}
