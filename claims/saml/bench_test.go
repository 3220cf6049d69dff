package saml

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// bareCheck is what a login cannot do without, as a library does it: parse,
// and validate one signature.
func bareCheck(m []byte, keys []*x509.Certificate) (*etree.Element, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(m); err != nil {
		return nil, err
	}
	ctx := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: keys})
	return ctx.Validate(doc.Root().FindElement("./Assertion"))
}

// BenchmarkLogin holds the whole of a message to everything, beside the bare
// check of its signature in the same run. The goal is a ratio under 1.5 at 20
// groups. The library cannot look at 2,000.
func BenchmarkLogin(b *testing.B) {
	for _, n := range []int{20, 200, 2000} {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			r := newRig(b)
			groups := make([]string, n)
			for i := range groups {
				groups[i] = fmt.Sprintf("group-%d", i)
			}
			r.idp.SetPerson(claimstest.SAMLPerson{NameID: "alice", Attributes: map[string][]string{"groups": groups}})
			m, trust := r.message(b, "id-x"), r.trust(b)
			var whole, bare time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if _, err := trust.accept(m, "id-x", r.now()); err != nil {
					b.Fatal(err)
				}
				whole += time.Since(began)
				if n <= 200 {
					began = time.Now()
					if _, err := bareCheck(m, trust.keys); err != nil {
						b.Fatal(err)
					}
					bare += time.Since(began)
				}
			}
			b.ReportMetric(float64(whole.Microseconds())/float64(b.N), "µs/login")
			if bare > 0 {
				b.ReportMetric(float64(bare.Microseconds())/float64(b.N), "µs/bare")
				b.ReportMetric(float64(whole)/float64(bare), "ratio")
			}
		})
	}
}

// BenchmarkScan is the count of a message's parts before it is parsed.
func BenchmarkScan(b *testing.B) {
	r := newRig(b)
	groups := make([]string, 2000)
	for i := range groups {
		groups[i] = fmt.Sprintf("group-%d", i)
	}
	r.idp.SetPerson(claimstest.SAMLPerson{NameID: "alice", Attributes: map[string][]string{"groups": groups}})
	m := r.message(b, "id-x")
	b.SetBytes(int64(len(m)))
	for b.Loop() {
		if err := scan(m); err != nil {
			b.Fatal(err)
		}
	}
}
