package config

import (
	"crypto/rsa"
	"crypto/tls"
	"net/url"
	"strings"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/proxy"
)

const (
	maxEntityID = 1024 // characters (SAML V2.0 Core 8.3.6)
	// Sooner is what cacheDuration and validUntil are for; later, a key that
	// was taken back would be believed for long.
	minMetadataRefresh, maxMetadataRefresh = time.Minute, 7 * 24 * time.Hour
	// A larger skew is a clock to be put right: for as long, an answer that has
	// ended still counts.
	maxClockSkew = 10 * time.Minute
)

func (c *checker) saml(at string, s *claims.SAMLConfig) {
	c.metadata(at, s)
	c.entityID(at+".entity_id", s.EntityID)
	c.entityID(at+".idp_entity_id", s.IDPEntityID)
	c.empty(at+".subject", s.Subject, ": write nameid, or the name of an attribute")
	if path := at + ".subject"; strings.TrimSpace(s.Subject) != s.Subject {
		c.fault(path, "has a blank around it: attributes are found by their exact name")
	}
	switch {
	case s.KeyFile != "" && s.CertFile == "":
		c.fault(at+".key_file", "stands without cert_file: providers know a key by its certificate")
	case s.KeyFile == "" && s.CertFile != "":
		c.fault(at+".cert_file", "stands without key_file")
	case s.KeyFile != "":
		c.rsaPair(at, s)
	}
	if r := s.MetadataRefresh; r < minMetadataRefresh || r > maxMetadataRefresh {
		c.fault(at+".metadata_refresh", "is not between %s and %s", short(minMetadataRefresh), short(maxMetadataRefresh))
	}
	if s.ClockSkew > maxClockSkew {
		c.fault(at+".clock_skew", "is more than %s: set the clocks right instead", short(maxClockSkew))
	}
	if s.Graph != nil {
		c.samlGraph(at+".graph", s.Graph)
	}
}

// rsaPair reads our key and its certificate as the source will.
func (c *checker) rsaPair(at string, s *claims.SAMLConfig) {
	c.pair(at, proxy.TLSConfig{CertFile: s.CertFile, KeyFile: s.KeyFile})
	both, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if key, ok := both.PrivateKey.(*rsa.PrivateKey); err == nil && (!ok || key.N.BitLen() < 2048) {
		c.fault(at+".key_file", "is not an RSA key of at least 2048 bits, which is what assertions are encrypted for")
	}
}

// metadata wants one place where the provider's metadata is.
func (c *checker) metadata(at string, s *claims.SAMLConfig) {
	byURL := c.written(at + ".metadata_url")
	byFile := s.MetadataFile != "" || c.faulty[at+".metadata_file"]
	switch {
	case byURL && byFile:
		c.fault(at+".metadata_file", "stands beside metadata_url: metadata is read in one place")
	case !byURL && !byFile:
		c.fault(at, "needs metadata_url or metadata_file: the provider's addresses and certificates stand there")
	}
	if path := at + ".metadata_url"; !c.empty(path, s.MetadataURL, "") && s.MetadataURL != "" {
		plain, query, _ := strings.Cut(s.MetadataURL, "?") // it may have one, unlike other addresses
		u, err := address(plain)
		switch {
		case err != nil:
			c.problem(path, err)
		case strings.ContainsAny(query, "# \t\r\n"):
			c.fault(path, "has a fragment, a blank or a line break")
		default:
			c.problem(path, secure(u))
		}
	}
	if s.MetadataCertificate != "" {
		_, err := claims.ParseCertificate(s.MetadataCertificate)
		c.problem(at+".metadata_certificate", err)
	}
}

// entityID accepts any URI: providers are called urn:... as well.
func (c *checker) entityID(path, id string) {
	switch u, err := url.Parse(id); {
	case id == "":
		if c.written(path) && !nullable(path[strings.LastIndexByte(path, '.')+1:]) {
			c.fault(path, "is empty")
		}
	case len(id) > maxEntityID:
		c.fault(path, "is longer than %d characters", maxEntityID)
	case strings.ContainsAny(id, " \t\r\n"):
		c.fault(path, "has a blank or a line break in it")
	case err != nil || u.Scheme == "":
		c.fault(path, "is not a URI such as https://portal.example.com/saml")
	}
}

// samlGraph wants all of "graph": a SAML source has neither issuer nor client
// to take something from.
func (c *checker) samlGraph(at string, g *claims.GraphConfig) {
	if !c.missing(at+".tenant", g.Tenant, "") {
		c.tenant(at+".tenant", g.Tenant)
	}
	c.missing(at+".client_id", g.ClientID, "")
	c.ownGraph(at, g)
	if g.ClientSecret == "" && g.ClientKey == "" && !c.written(at+".client_secret") && !c.written(at+".client_key") {
		c.fault(at, "needs client_secret or client_key: Graph is asked in the application's own name")
	}
}
