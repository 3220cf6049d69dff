package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/groupgate/groupgate/claims"
)

// withSAML is minimal with a SAML source in place of its own.
func withSAML(section string) string {
	before, _, _ := strings.Cut(minimal, "sources:")
	return before + "sources:\n  - {name: idp, saml: " + section + "}\n"
}

func TestSAMLDefaults(t *testing.T) {
	t.Parallel()
	got := mustLoad(t, withSAML(`{metadata_url: "https://idp.example.com/metadata"}`)).Source("idp").SAML
	want := &claims.SAMLConfig{
		MetadataURL: "https://idp.example.com/metadata", MetadataRefresh: time.Hour, Subject: "nameid", SignRequests: true,
		ClockSkew: time.Minute, EntityID: "https://portal.example.com/_auth/saml/idp/metadata",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// What is written holds, and other sources do not hear of it.
	got = mustLoad(t, withSAML(`{metadata_file: idp.xml, sign_requests: false, subject: uid, clock_skew: 5s, metadata_refresh: 2h, entity_id: "urn:example:portal"}`)).Source("idp").SAML
	want = &claims.SAMLConfig{
		MetadataFile: "idp.xml", MetadataRefresh: 2 * time.Hour, Subject: "uid", ClockSkew: 5 * time.Second, EntityID: "urn:example:portal",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !claims.DefaultSAML.SignRequests || claims.DefaultSAML.Subject != "nameid" {
		t.Error("the defaults were changed")
	}
}

// A key, a certificate or metadata that changes must be read again.
func TestFilesOfSAMLSourcesAreWatched(t *testing.T) {
	t.Parallel()
	cert, key := rsaPair(t, t.TempDir(), 2048)
	files := mustLoad(t, withSAML(fmt.Sprintf(`{metadata_file: idp.xml, key_file: %q, cert_file: %q}`, key, cert))).Files()
	for _, f := range []string{"idp.xml", key, cert} {
		if !slices.Contains(files, f) {
			t.Errorf("%s is not among %q", f, files)
		}
	}
	if files := mustLoad(t, withSAML(`{metadata_url: "https://idp.example.com/metadata"}`)).Files(); len(files) != 1 {
		t.Errorf("files %q", files)
	}
}
