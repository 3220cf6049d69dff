package proxy

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
)

// userinfo says who the browser is signed in as, and why in which groups. It
// never says a token.
func (p *Proxy) userinfo(x *exchange, r *http.Request) error {
	m, err := p.find(x.site, r, x.host.session())
	if err != nil {
		return err
	}
	ownHeaders(x.Header())
	if m == nil {
		p.writeAnswer(x, r, answerFor(errUnauthenticated), false)
		return nil
	}
	x.member = m
	x.carry(x.Header())
	v := m.view
	memberships, err := p.dir.Why(r.Context(), v)
	if err != nil {
		return err
	}
	type group struct {
		Name string `json:"name"`
		Why  []why  `json:"why"`
	}
	list := []group{}
	for _, ms := range memberships {
		list = append(list, group{ms.Group, reasons(ms)})
	}
	writeJSON(x, http.StatusOK, map[string]any{
		"source": v.Login.Source, "subject": v.Login.Subject, "user": v.User.Name, "email": v.User.Email,
		"name": v.User.Display, "groups": list, "expires_at": v.Login.Expires.UTC().Format(time.RFC3339),
	})
	return nil
}

type why struct {
	Source string `json:"source"`
	Rule   string `json:"rule"`
	Claim  string `json:"claim"`
	Value  string `json:"value"`
}

func reasons(m groups.Membership) []why {
	out := []why{}
	for _, g := range m.Grants {
		out = append(out, why{g.Source, g.Rule, g.Claim, g.Value})
	}
	if m.By != "" {
		out = append(out, why{Source: "manual", Rule: "manual"})
	}
	return out
}

func (p *Proxy) jwks(x *exchange) {
	body, err := x.site.set.Signer.JWKS()
	if err != nil {
		p.log.Error("jwks.json", zap.Error(err))
		writeJSON(x, http.StatusInternalServerError, map[string]string{"error": "internal"})
		return
	}
	x.Header().Set("Content-Type", "application/jwk-set+json")
	x.Header().Set("Cache-Control", "public, max-age=300")
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(body)
}
