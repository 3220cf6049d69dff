package e2e

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// plain sends a question to groupgate itself, with these header lines and no
// others.
func (b *beside) plain(t *testing.T, method, address string, lines []string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", b.public)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, method+" "+address+" HTTP/1.1\r\n"+strings.Join(lines, "\r\n")+"\r\nContent-Length: 0\r\n\r\n")
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	must(t, err)
	return resp
}

// putPlain puts a proxy in front that does nothing but TLS, to sign in through.
func (b *beside) putPlain(t *testing.T) {
	t.Helper()
	b.certify(t)
	pair, err := tls.LoadX509KeyPair(b.file("server.pem"), b.file("server.key"))
	must(t, err)
	to, err := url.Parse(b.url())
	must(t, err)
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}})
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	front.StartTLS()
	t.Cleanup(front.Close)
	b.address = front.Listener.Addr().String()
}

// list is a list of header names in Envoy's configuration.
type list struct {
	Patterns []struct{ Exact string }
}

func (l list) names() (all []string) {
	for _, p := range l.Patterns {
		all = append(all, p.Exact)
	}
	return all
}

type envoyFilter struct {
	Name   string
	Config struct {
		Type string `yaml:"@type"`
		// Of the connection manager.
		StatPrefix                string `yaml:"stat_prefix"`
		UseRemoteAddress          bool   `yaml:"use_remote_address"`
		XFFNumTrustedHops         int    `yaml:"xff_num_trusted_hops"`
		NormalizePath             bool   `yaml:"normalize_path"`
		MergeSlashes              bool   `yaml:"merge_slashes"`
		PathWithEscapedSlashes    string `yaml:"path_with_escaped_slashes_action"`
		CommonHTTPProtocolOptions struct {
			HeadersWithUnderscores string `yaml:"headers_with_underscores_action"`
		} `yaml:"common_http_protocol_options"`
		UpgradeConfigs []struct {
			UpgradeType string `yaml:"upgrade_type"`
		} `yaml:"upgrade_configs"`
		StreamIdleTimeout string        `yaml:"stream_idle_timeout"`
		HTTPFilters       []envoyFilter `yaml:"http_filters"`
		RouteConfig       struct {
			VirtualHosts []struct {
				Name    string
				Domains []string
				Routes  []struct {
					Match  struct{ Prefix string }
					Route  struct{ Cluster, Timeout string }
					Filter map[string]struct {
						Type     string `yaml:"@type"`
						Disabled bool
					} `yaml:"typed_per_filter_config"`
				}
			} `yaml:"virtual_hosts"`
		} `yaml:"route_config"`
		// Of the Lua filter.
		DefaultSourceCode struct {
			InlineString string `yaml:"inline_string"`
		} `yaml:"default_source_code"`
		// Of ext_authz.
		FailureModeAllow *bool                 `yaml:"failure_mode_allow"`
		StatusOnError    struct{ Code string } `yaml:"status_on_error"`
		AllowedHeaders   list                  `yaml:"allowed_headers"`
		HTTPService      struct {
			ServerURI struct {
				URI, Cluster, Timeout string
			} `yaml:"server_uri"`
			PathPrefix            string `yaml:"path_prefix"`
			AuthorizationResponse struct {
				AllowedUpstreamHeaders        list `yaml:"allowed_upstream_headers"`
				AllowedClientHeadersOnSuccess list `yaml:"allowed_client_headers_on_success"`
			} `yaml:"authorization_response"`
		} `yaml:"http_service"`
	} `yaml:"typed_config"`
}

type socketAddress struct {
	SocketAddress struct {
		Address   string
		PortValue int `yaml:"port_value"`
	} `yaml:"socket_address"`
}

type envoyFile struct {
	StaticResources struct {
		Listeners []struct {
			Name         string
			Address      socketAddress
			FilterChains []struct {
				TransportSocket struct {
					Name   string
					Config struct {
						Type   string `yaml:"@type"`
						Common struct {
							ALPN         []string `yaml:"alpn_protocols"`
							Certificates []struct {
								Chain struct{ Filename string } `yaml:"certificate_chain"`
								Key   struct{ Filename string } `yaml:"private_key"`
							} `yaml:"tls_certificates"`
						} `yaml:"common_tls_context"`
					} `yaml:"typed_config"`
				} `yaml:"transport_socket"`
				Filters []envoyFilter
			} `yaml:"filter_chains"`
		}
		Clusters []struct {
			Name           string
			ConnectTimeout string `yaml:"connect_timeout"`
			LoadAssignment struct {
				ClusterName string `yaml:"cluster_name"`
				Endpoints   []struct {
					Endpoints []struct {
						Endpoint struct{ Address socketAddress }
					} `yaml:"lb_endpoints"`
				}
			} `yaml:"load_assignment"`
		}
	} `yaml:"static_resources"`
}

func TestEnvoyExample(t *testing.T) {
	t.Parallel()
	var f envoyFile
	strictly(t, "envoy/envoy.yaml", &f)
	manager := f.StaticResources.Listeners[0].FilterChains[0].Filters[0].Config
	if !manager.UseRemoteAddress || !manager.NormalizePath || !manager.MergeSlashes || manager.PathWithEscapedSlashes != "REJECT_REQUEST" ||
		manager.CommonHTTPProtocolOptions.HeadersWithUnderscores != "REJECT_REQUEST" || len(manager.UpgradeConfigs) != 1 || manager.UpgradeConfigs[0].UpgradeType != "websocket" {
		t.Errorf("%+v", manager)
	}
	var order []string
	for _, filter := range manager.HTTPFilters {
		order = append(order, filter.Name)
		if !regexp.MustCompile(`^type\.googleapis\.com/envoy\.extensions\.filters\.http\.(lua\.v3\.Lua|ext_authz\.v3\.ExtAuthz|router\.v3\.Router)$`).MatchString(filter.Config.Type) {
			t.Errorf("%s is a %s", filter.Name, filter.Config.Type)
		}
	}
	if !slices.Equal(order, []string{"envoy.filters.http.lua", "envoy.filters.http.ext_authz", "envoy.filters.http.router"}) {
		t.Fatalf("filters %q", order)
	}
	authz := manager.HTTPFilters[1].Config
	if authz.FailureModeAllow == nil || *authz.FailureModeAllow {
		t.Error("no answer is a yes")
	}
	passed := authz.HTTPService.AuthorizationResponse.AllowedUpstreamHeaders.names()
	var lower []string
	for _, name := range identity {
		lower = append(lower, strings.ToLower(name))
	}
	if !slices.Equal(passed, lower) {
		t.Errorf("headers %q of the answer, want %q", passed, lower)
	}
	clusters := map[string]int{}
	for _, c := range f.StaticResources.Clusters {
		clusters[c.Name] = c.LoadAssignment.Endpoints[0].Endpoints[0].Endpoint.Address.SocketAddress.PortValue
	}
	for _, r := range manager.RouteConfig.VirtualHosts[0].Routes {
		own := r.Match.Prefix == "/_auth/"
		if clusters[r.Route.Cluster] != map[bool]int{true: 4180, false: 8080}[own] || r.Filter["envoy.filters.http.ext_authz"].Disabled != own {
			t.Errorf("route %s: %+v", r.Match.Prefix, r)
		}
	}
	b := newBeside(t, "envoy")
	b.replays(t, 200, func(method, path string, client []string) (string, string, []string) {
		// Envoy sends method, path and Host of the request, and of its headers
		// those that are listed.
		lines := []string{"Host: " + portal, "x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https"}
		for _, l := range client {
			name, _, _ := strings.Cut(l, ":")
			if slices.Contains(authz.AllowedHeaders.names(), strings.ToLower(name)) {
				lines = append(lines, l)
			}
		}
		return method, authz.HTTPService.PathPrefix + path, lines
	})
}
