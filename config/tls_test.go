package config

import (
	"slices"
	"testing"

	"github.com/groupgate/groupgate/proxy"
)

const acmeRoutes = `
routes:
  - {host: ENG.example.com}
  - {host: eng.example.com, path: /x}
  - {host: board.example.com:8443}
`

// Certificates are asked for by what is served, unless the file says otherwise.
func TestACMEHosts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"tls: {acme: {accept_terms: true}}\n":                                      {"portal.example.com"},
		"tls: {acme: {accept_terms: true}}" + acmeRoutes:                           {"portal.example.com", "eng.example.com", "board.example.com"},
		"tls: {acme: {accept_terms: true, hosts: [ENG.example.com]}}" + acmeRoutes: {"eng.example.com"},
	} {
		a := mustLoad(t, minimal+text).TLS.ACME
		if a == nil || !slices.Equal(a.Hosts, want) || a.Directory != proxy.DefaultACME.Directory || !a.AcceptTerms {
			t.Errorf("%q: %+v", text, a)
		}
	}
	if c := mustLoad(t, minimal); c.TLS.ACME != nil || c.TLS.On() {
		t.Errorf("TLS unasked: %+v", c.TLS)
	}
}
