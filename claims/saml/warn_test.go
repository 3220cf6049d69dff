package saml

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// A certificate that runs out is said 30, 14 and 7 days before, and at the
// end, once each.
func TestWarningsBeforeACertificateRunsOut(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	certificateUntil := func(until time.Time) []byte {
		der, err := claimstest.SAMLCertificate(theirKey(), testNow.Add(-400*day), until)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	entityWith := func(certificates ...[]byte) *entity {
		var keys strings.Builder
		for _, der := range certificates {
			keys.WriteString(keyXML("", encode(der)))
		}
		e, err := read(header+`>`+roleXML(keys.String()+sso)+`</md:EntityDescriptor>`, "")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	end := testNow.Add(100 * day)
	core, logs := observer.New(zapcore.WarnLevel)
	now := testNow
	k := &keeper{cfg: claims.SAMLConfig{MetadataURL: "x"}, log: zap.New(core), now: func() time.Time { return now }}
	k.have.Store(&known{entityWith(certificateUntil(end)), now})
	told := []int{}
	for d := range 102 {
		now = testNow.Add(time.Duration(d) * day)
		for range 3 {
			k.warn()
		}
		for range logs.TakeAll() {
			told = append(told, 100-d)
		}
	}
	if want := []int{30, 14, 7, 0}; !reflect.DeepEqual(told, want) {
		t.Errorf("told with %v days left, wanted %v", told, want)
	}
	// A new one beside it ends the alarm once the old one is over, and not
	// before: until then the provider may sign with the old one.
	k.have.Store(&known{entityWith(certificateUntil(end), certificateUntil(end.Add(365*day))), now})
	k.warn()
	if n := len(logs.TakeAll()); n != 0 {
		t.Errorf("%d warnings about a certificate that was replaced", n)
	}
	now = testNow
	if got := k.have.Load().certificateEnds(now); !got.Equal(end) {
		t.Errorf("the first to end: %v", got)
	}
	// Metadata in a file runs out as well.
	text := strings.Replace(goodMetadata(), header, header+` validUntil="`+testNow.Add(10*day).Format(time.RFC3339)+`"`, 1)
	e, err := read(text, "")
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]int{"": 0, "idp.xml": 1} {
		k := &keeper{cfg: claims.SAMLConfig{MetadataFile: file}, log: zap.New(core), now: func() time.Time { return testNow }}
		if file == "" {
			k.cfg.MetadataURL = "https://idp.example.com"
		}
		k.have.Store(&known{e, testNow})
		k.warn()
		if n := len(logs.TakeAll()); n != want {
			t.Errorf("file %q: %d warnings, wanted %d", file, n, want)
		}
	}
}
