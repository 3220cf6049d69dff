package saml

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// bombs are messages that cost much more to read than to send. good is one
// honest response, as everybody gets who can sign in: a signature in it is the
// provider's, and what was put beside it is not.
func bombs(r *rig, good []byte) map[string][]byte {
	response := func(inside string) []byte {
		return []byte(strings.Replace(string(good), "<samlp:Status>", inside+"<samlp:Status>", 1))
	}
	extensions := func(inside string) []byte {
		return response("<samlp:Extensions>" + inside + "</samlp:Extensions>")
	}
	in := func(after, inside string) []byte {
		out := strings.Replace(string(good), after, after+inside, 1)
		if len(out) == len(good) {
			panic("the message has no " + after)
		}
		return []byte(out)
	}
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			_, _ = fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const item = `<saml:AttributeStatement>`
	wide := strings.Repeat("<a/>", 15_000)
	spaces := func(n int) string { return repeat(n, ` xmlns:n%d="urn:x"`) }
	around := func(levels int, inside string) string {
		open, closed := "", ""
		for l := range levels {
			open, closed = open+fmt.Sprintf("<b%s>", repeat(16, fmt.Sprintf(` xmlns:n%d_%%d="urn:x"`, l))), closed+"</b>"
		}
		return open + inside + closed
	}
	everywhere := around(3, repeat(6_000, `<n0_1:a xmlns:m="urn:%d" n1_1:b="" n2_1:c=""/>`))
	return map[string][]byte{
		"SM-14 64,000 namespaces":                      extensions(`<x` + spaces(64_000) + `/>`),
		"SM-14 20,000 namespaces":                      extensions(`<x` + spaces(20_000) + `/>`),
		"SM-14 namespaces on every level":              extensions(around(40, "")),
		"SM-14 10,000 deep":                            extensions(strings.Repeat("<a>", 10_000) + strings.Repeat("</a>", 10_000)),
		"SM-14 10,000 deep, never closed":              extensions(strings.Repeat("<a>", 10_000)),
		"SM-14 1,000,000 attributes":                   extensions(`<x` + repeat(1_000_000, ` a%d=""`) + `/>`),
		"SM-14 40,000 attributes":                      extensions(`<x` + repeat(40_000, ` a%d=""`) + `/>`),
		"SM-14 10 MB":                                  extensions(strings.Repeat("x", 10<<20)),
		"SM-14 120,000 elements":                       extensions(strings.Repeat("<a/>", 120_000)),
		"SM-14 60,000 comments":                        response(strings.Repeat("<!---->", 60_000)),
		"SM-14 15,000 elements in the signed":          in(item, wide),
		"SM-14 and 500 comments":                       in(item, wide+strings.Repeat("<!---->", 490)),
		"SM-14 and namespaces for all":                 in(item, around(3, wide)),
		"SM-14 and as many namespaces as that allows":  in(item, around(0, `<b`+spaces(4)+`>`+wide+`</b>`)),
		"SM-14 and namespaces used by all":             in(item, everywhere),
		"SM-14 15,000 elements in SignedInfo":          in("<ds:SignedInfo>", wide),
		"SM-14 a long list of prefixes":                in(`<ds:SignedInfo>`, `<ds:CanonicalizationMethod Algorithm="`+exclusiveC14N+`"><ec:InclusiveNamespaces xmlns:ec="`+exclusiveC14N+`" PrefixList="`+repeat(50_000, "n%d ")+`"/></ds:CanonicalizationMethod>`),
		"SM-14 400 KiB in a signature value":           in("<ds:SignatureValue>", strings.Repeat("A", 400<<10)),
		"SM-14 400 KiB of blanks in SignedInfo":        in("<ds:SignedInfo>", strings.Repeat(" ", 400<<10)),
		"SM-14 400 KiB of text in the signed":          in(item, strings.Repeat("&#60;", 80<<10)),
		"SM-14 15,000 IDs":                             in(item, repeat(15_000, `<a ID="%d"/>`)),
		"SM-14 15,000 attributes in the signed":        in(item, repeat(400, `<a`+repeat(60, ` a%d=""`)+` b="%d"/>`)),
		"SM-14 sealed: elements and namespaces":        r.bomb(`<b` + spaces(8) + `>` + wide + `</b>`),
		"SM-14 sealed: 300 KiB":                        r.bomb(strings.Repeat("x", 300<<10)),
		"SM-14 15,000 audiences that are not ours":     in(`<saml:AudienceRestriction>`, strings.Repeat("<saml:Audience/>", 15_000)),
		"SM-14 15,000 confirmations that are not ours": in(`<saml:Subject>`, strings.Repeat(`<saml:SubjectConfirmation/>`, 15_000)),
	}
}

// bomb is a response with such an assertion encrypted in it.
func (r *rig) bomb(inside string) []byte {
	root := claimstest.SAMLElement(`<samlp:Response xmlns:samlp="` + nsProtocol + `" xmlns:saml="` + nsAssertion + `" ID="_r" Version="2.0" InResponseTo="id-x" IssueInstant="` +
		r.now().UTC().Format(time.RFC3339) + `"><saml:Issuer>` + r.idp.EntityID() + `</saml:Issuer><samlp:Status><samlp:StatusCode Value="` + statusSuccess + `"/></samlp:Status></samlp:Response>`)
	root.AddChild(r.sealText([]byte(`<Assertion xmlns="` + nsAssertion + `" ID="_x">` + inside + `</Assertion>`)))
	return claimstest.SAMLBytes(root)
}

// SM-14, S0-09: each is refused in under 100 ms of this machine, and holds on to
// nothing, while others sign in.
func TestSM14Bombs(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	r := newRig(t, withEC)
	trust := r.trust(t)
	good := r.message(t, "id-x")
	all := bombs(r, good)
	const limit = 100 * time.Millisecond
	var before, after runtime.MemStats
	for name, m := range all {
		t.Run(name, func(t *testing.T) {
			least := time.Hour
			for range 5 { // the quickest of some: the machine has other things to do
				runtime.ReadMemStats(&before)
				began, worked := time.Now(), processorTime(t)
				_, err := trust.accept(m, "id-x", r.now())
				least = min(least, time.Since(began), processorTime(t)-worked)
				runtime.ReadMemStats(&after)
				if err == nil {
					t.Fatal("accepted")
				}
				if least < limit {
					break
				}
			}
			used := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("%d KiB: %s, %d MiB", len(m)>>10, least, used)
			if least > limit || used > 64 {
				t.Errorf("%d KiB: %s, %d MiB", len(m)>>10, least, used)
			}
			if _, err := trust.accept(good, "id-x", r.now()); err != nil {
				t.Errorf("control: %v", err)
			}
		})
	}

	// All of them again and again, from two sides, and people beside them.
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				for _, m := range all {
					select {
					case <-stop:
						return
					default:
						_, _ = trust.accept(m, "id-x", r.now())
					}
				}
			}
		})
	}
	for range 10 {
		began := time.Now()
		if id, err := r.login(t); err != nil || id.Subject != "alice" {
			t.Errorf("a login beside them: %+v, %v", id, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a login beside them took %s", took)
		}
	}
	close(stop)
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d MiB are kept", grown>>20)
	}
}

// processorTime is what this process has used: unlike the clock it does not run
// while others have the processor.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// SM-14: the bounds are where they are said to be.
func TestSM14Bounds(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEC)
	for name, change := range map[string]func(root *etree.Element){
		"just under the bound of elements": func(root *etree.Element) {
			box := wrapped("Extensions")
			for range maxElements - 100 {
				box.CreateElement("a")
			}
			afterIssuer(root, box)
		},
		"just under the bound of depth": func(root *etree.Element) {
			box := wrapped("Extensions")
			at := box
			for range maxDepth - 2 {
				at = at.CreateElement("a")
			}
			afterIssuer(root, box)
		},
		"just under the bound of comments": func(root *etree.Element) {
			for range maxComments {
				root.AddChild(etree.NewComment("x"))
			}
		},
	} {
		r.accepted(t, "SM-14 control: "+name, editSigned(change))
	}
	deep := func(root *etree.Element) {
		box := wrapped("Extensions")
		at := box
		for range maxDepth {
			at = at.CreateElement("a")
		}
		afterIssuer(root, box)
	}
	r.refused(t, "SM-14 one too deep", editSigned(deep), "deeper than")
	r.refused(t, "SM-14 one comment too many", editSigned(func(root *etree.Element) {
		for range maxComments + 1 {
			root.AddChild(etree.NewComment("x"))
		}
	}), "comments")
}
