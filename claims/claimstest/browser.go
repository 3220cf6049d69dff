package claimstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Browser is as much of a browser as a login needs: cookies, redirects, forms
// and the headers of a navigation. It is for one goroutine.
type Browser struct {
	Client *http.Client // does not follow redirects; the browser does
	Header http.Header  // sent with every request
	// Hosts says where names that do not resolve are: "portal.test" or
	// "portal.test:443" to "127.0.0.1:8443".
	Hosts map[string]string
}

// Hop is one request on the way to a page.
type Hop struct {
	Method, URL string
	Status      int
	Header      http.Header // of the answer
}

// Page is where a navigation ended.
type Page struct {
	Status int
	URL    *url.URL
	Header http.Header
	Body   string
	Hops   []Hop // every request of the navigation, the page's own last
}

const maxHops = 20

// NewBrowser makes a browser without cookies. It trusts the given roots when
// there are any, else the machine's.
func NewBrowser(roots *x509.CertPool) *Browser {
	b := &Browser{Hosts: map[string]string{}, Header: http.Header{
		"Accept":                    {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		"Accept-Language":           {"en"},
		"Upgrade-Insecure-Requests": {"1"},
		"Sec-Fetch-Mode":            {"navigate"},
		"Sec-Fetch-Dest":            {"document"},
		"Sec-Fetch-User":            {"?1"},
		"User-Agent":                {"Mozilla/5.0 (groupgate test browser)"},
	}}
	jar, _ := cookiejar.New(nil) // without options there is no error
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	b.Client = &http.Client{
		Timeout: 30 * time.Second,
		Jar:     secureLoopback{jar},
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
			IdleConnTimeout:   10 * time.Second,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				host, _, _ := net.SplitHostPort(address)
				if to, ok := b.Hosts[address]; ok {
					address = to
				} else if to, ok := b.Hosts[host]; ok {
					address = to
				}
				return dialer.DialContext(ctx, network, address)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return b
}

// Close ends the browser's idle connections.
func (b *Browser) Close() { b.Client.CloseIdleConnections() }

// secureLoopback sends Secure cookies to plain http on loopback, as browsers
// do (Secure Contexts section 3.1: potentially trustworthy origins).
type secureLoopback struct{ http.CookieJar }

func (j secureLoopback) Cookies(u *url.URL) []*http.Cookie { return j.CookieJar.Cookies(asSecure(u)) }
func (j secureLoopback) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.CookieJar.SetCookies(asSecure(u), cookies)
}

func asSecure(u *url.URL) *url.URL {
	host := u.Hostname()
	ip := net.ParseIP(host)
	if host != "localhost" && !strings.HasSuffix(host, ".localhost") && (ip == nil || !ip.IsLoopback()) {
		return u
	}
	c := *u
	c.Scheme = "https"
	return &c
}

// Cookies lists the cookies the browser would send to an address.
func (b *Browser) Cookies(address string) []*http.Cookie {
	u, err := url.Parse(address)
	if err != nil {
		return nil
	}
	return b.Client.Jar.Cookies(u)
}

// Get navigates to an address and follows its redirects.
func (b *Browser) Get(address string) (*Page, error) {
	return b.navigate(http.MethodGet, address, nil, "")
}

// Post sends a form, as the page at origin would.
func (b *Browser) Post(address string, values url.Values, origin string) (*Page, error) {
	return b.navigate(http.MethodPost, address, values, origin)
}

func (b *Browser) navigate(method, address string, values url.Values, origin string) (*Page, error) {
	var hops []Hop
	for range maxHops {
		var body io.Reader
		if method == http.MethodPost {
			body = strings.NewReader(values.Encode())
		}
		req, err := http.NewRequest(method, address, body)
		if err != nil {
			return nil, err
		}
		for name, v := range b.Header {
			req.Header[name] = v
		}
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", origin)
		}
		req.Header.Set("Sec-Fetch-Site", fetchSite(origin, req.URL))
		page, err := b.do(req)
		if err != nil {
			return nil, err
		}
		hops = append(hops, page.Hops...)
		page.Hops = hops
		next := page.Header.Get("Location")
		if page.Status < 300 || page.Status > 399 || next == "" {
			return page, nil
		}
		to, err := req.URL.Parse(next)
		if err != nil {
			return nil, fmt.Errorf("redirect to a malformed address: %w", err)
		}
		origin = req.URL.Scheme + "://" + req.URL.Host
		address = to.String()
		if page.Status != http.StatusTemporaryRedirect && page.Status != http.StatusPermanentRedirect {
			method, values = http.MethodGet, nil
		}
	}
	return nil, errors.New("too many redirects")
}

func fetchSite(origin string, to *url.URL) string {
	switch {
	case origin == "":
		return "none"
	case origin == to.Scheme+"://"+to.Host:
		return "same-origin"
	default:
		return "cross-site"
	}
}

func (b *Browser) do(req *http.Request) (*Page, error) {
	resp, err := b.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	return &Page{
		Status: resp.StatusCode, URL: req.URL, Header: resp.Header, Body: string(body),
		Hops: []Hop{{Method: req.Method, URL: req.URL.String(), Status: resp.StatusCode, Header: resp.Header}},
	}, nil
}

// Submit fills the page's first form and sends it. Fields that are not given
// keep their values; buttons are pressed only when given.
func (b *Browser) Submit(p *Page, values map[string]string) (*Page, error) {
	forms := p.Forms()
	if len(forms) == 0 {
		return nil, fmt.Errorf("%s has no form", p.URL)
	}
	return b.SubmitForm(p, forms[0], values)
}

// SubmitForm is [Browser.Submit] for a chosen form of the page.
func (b *Browser) SubmitForm(p *Page, f Form, values map[string]string) (*Page, error) {
	to, err := p.URL.Parse(f.Action)
	if err != nil {
		return nil, err
	}
	sent := url.Values{}
	for name, v := range f.Fields {
		sent.Set(name, v)
	}
	for name, v := range values {
		sent.Set(name, v)
	}
	if f.Method != http.MethodPost {
		to.RawQuery = sent.Encode()
		return b.Get(to.String())
	}
	return b.Post(to.String(), sent, p.URL.Scheme+"://"+p.URL.Host)
}

// Login navigates to an address and walks through the sign-in pages it meets,
// those of [OP], [SAMLIdP], npm's oidc-provider and SimpleSAMLphp, until another
// page comes.
func (b *Browser) Login(address, person string) (*Page, error) {
	p, err := b.Get(address)
	var hops []Hop
	for range 8 {
		if err != nil {
			return nil, err
		}
		hops = append(hops, p.Hops...)
		p.Hops = hops
		f, values := signInForm(p, person)
		if values == nil {
			return p, nil
		}
		p, err = b.SubmitForm(p, f, values)
	}
	return nil, errors.New("the login does not end")
}

func signInForm(p *Page, person string) (Form, map[string]string) {
	for _, f := range p.Forms() {
		_, login := f.Fields["login"]
		_, simple := f.Fields["AuthState"]
		switch {
		case f.Buttons["person"] != nil:
			return f, map[string]string{"person": person}
		case login:
			return f, map[string]string{"login": person, "password": "any"}
		case simple:
			return f, map[string]string{"username": person, "password": "any"}
		case f.Fields["prompt"] == "consent", f.Fields["SAMLResponse"] != "":
			return f, map[string]string{}
		}
	}
	return Form{}, nil
}

// Form is one form of a page.
type Form struct {
	Method, Action string
	Fields         map[string]string   // inputs by name, buttons left out
	Buttons        map[string][]string // values by name
}

var (
	formTag   = regexp.MustCompile(`(?is)<form\b([^>]*)>(.*?)</form>`)
	fieldTag  = regexp.MustCompile(`(?is)<(input|button|textarea|select)\b([^>]*)>`)
	attribute = regexp.MustCompile(`(?is)([a-z0-9_:-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?`)
)

// Forms reads the page's forms. It is no HTML parser: it is enough for pages
// that are well formed.
func (p *Page) Forms() []Form {
	var forms []Form
	for _, m := range formTag.FindAllStringSubmatch(p.Body, -1) {
		at := attributes(m[1])
		f := Form{Method: strings.ToUpper(at["method"]), Action: at["action"], Fields: map[string]string{}, Buttons: map[string][]string{}}
		if f.Method == "" {
			f.Method = http.MethodGet
		}
		if f.Action == "" {
			f.Action = p.URL.String()
		}
		for _, e := range fieldTag.FindAllStringSubmatch(m[2], -1) {
			f.add(strings.ToLower(e[1]), attributes(e[2]))
		}
		forms = append(forms, f)
	}
	return forms
}

func (f *Form) add(tag string, at map[string]string) {
	name, kind := at["name"], strings.ToLower(at["type"])
	_, checked := at["checked"]
	switch {
	case name == "":
	case tag == "button" || kind == "submit" || kind == "button" || kind == "image":
		f.Buttons[name] = append(f.Buttons[name], at["value"])
	case (kind == "checkbox" || kind == "radio") && !checked:
	default:
		f.Fields[name] = at["value"]
	}
}

func attributes(text string) map[string]string {
	at := map[string]string{}
	for _, m := range attribute.FindAllStringSubmatch(text, -1) {
		at[strings.ToLower(m[1])] = html.UnescapeString(m[2] + m[3] + m[4])
	}
	return at
}
