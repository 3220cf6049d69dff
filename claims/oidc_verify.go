package claims

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// Allowances of an ID token's times.
const (
	expLeeway  = 30 * time.Second
	iatFuture  = time.Minute
	iatPast    = 24 * time.Hour
	maxSubject = 255 // bytes; OpenID Connect Core 1.0 section 2
)

// idToken is a verified ID token.
type idToken struct {
	claims  Claims
	subject string
	issued  time.Time
	expires time.Time
}

// expected is what an ID token must agree with. A nil nonce is not compared.
type expected struct {
	nonce       *string
	accessToken string
}

// verify checks an ID token by OpenID Connect Core 1.0 section 3.1.3.7. Every
// value that is used is read from the payload by its exact key: the library
// decodes into a struct, for which "SUB" is as good as "sub".
func (o *OIDC) verify(ctx context.Context, p *provider, raw string, want expected) (*idToken, error) {
	const step = "check ID token"
	jws, err := jose.ParseSignedCompact(raw, p.algs)
	if err != nil {
		return nil, o.errorf(step, ErrProtocol, "not a signed JWT of an allowed algorithm")
	}
	if typ := tokenType(jws); typ == "logout+jwt" || typ == "at+jwt" {
		return nil, o.errorf(step, ErrProtocol, "a token of another type")
	}
	keys := &noting{set: p.keys}
	verifier := oidc.NewVerifier(o.cfg.Issuer, keys, &oidc.Config{
		ClientID:             o.cfg.ClientID,
		SupportedSigningAlgs: algNames(p.algs),
		Now:                  func() time.Time { return o.now().Add(-expLeeway) },
	})
	verified, verifyErr := verifier.Verify(ctx, raw)
	switch {
	case errors.Is(keys.err, ErrUnavailable):
		return nil, o.errorf(step, ErrUnavailable, "%w", keys.err)
	case keys.err != nil:
		return nil, o.errorf(step, ErrProtocol, "%w", keys.err)
	case !keys.verified:
		return nil, o.errorf(step, ErrProtocol, "not verified")
	}
	// The signature is good. Our own checks come first because the library's
	// errors quote values.
	tok, err := o.checkClaims(keys.claims, want)
	if err != nil {
		return nil, o.errorf(step, ErrProtocol, "%w", err)
	}
	if verifyErr != nil {
		return nil, o.errorf(step, ErrProtocol, "the token is malformed")
	}
	if _, there := tok.claims.all()["at_hash"]; there {
		if _, text := tok.claims.all()["at_hash"].(string); !text || verified.VerifyAccessToken(want.accessToken) != nil {
			return nil, o.errorf(step, ErrProtocol, "at_hash does not fit the access token")
		}
	}
	return tok, nil
}

// noting stands between the library and the key set. It remembers what the key
// set said, which the library flattens to text, and the whole payload; the
// library gets the protocol's own claims by their exact keys. It would refuse
// a token whose _claim_names lack a source, which for us is a group claim that
// is not known.
type noting struct {
	set      *keySet
	verified bool
	claims   Claims
	err      error
}

func (n *noting) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	payload, err := n.set.VerifySignature(ctx, raw)
	if err != nil {
		n.err = err
		return nil, err
	}
	if n.claims, err = Parse(payload); err != nil {
		// Parse quotes keys, and those of a hostile token are foreign text.
		n.err = errors.New("the payload is not one unambiguous JSON object")
		return nil, n.err
	}
	n.verified = true
	own := map[string]any{}
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "nbf", "nonce", "at_hash"} {
		if v, there := n.claims.all()[name]; there {
			own[name] = v
		}
	}
	return json.Marshal(own)
}

func algNames(algs []jose.SignatureAlgorithm) []string {
	names := make([]string, len(algs))
	for i, a := range algs {
		names[i] = string(a)
	}
	return names
}

// tokenType is the header's typ without the optional "application/"
// (RFC 7515 section 4.1.9).
func tokenType(jws *jose.JSONWebSignature) string {
	if len(jws.Signatures) == 0 {
		return ""
	}
	typ, _ := jws.Signatures[0].Header.ExtraHeaders[jose.HeaderType].(string)
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

func (o *OIDC) checkClaims(c Claims, want expected) (*idToken, error) {
	if err := exactKeys(c); err != nil {
		return nil, err
	}
	if _, logout := c.all()["events"]; logout {
		return nil, errors.New("a token about events (such as a logout token)")
	}
	if err := o.checkIssuer(c); err != nil {
		return nil, err
	}
	if err := o.checkAudience(c); err != nil {
		return nil, err
	}
	if want.nonce != nil {
		nonce, _ := c.all()["nonce"].(string)
		if nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(*want.nonce)) != 1 {
			return nil, errors.New("nonce is missing or not this login's")
		}
	}
	sub, err := subject(c)
	if err != nil {
		return nil, err
	}
	tok := &idToken{claims: c, subject: sub}
	return tok, o.checkTimes(tok)
}

// exactKeys refuses a claim of the protocol in another spelling: what reads
// JSON keys without regard to case would believe it.
func exactKeys(c Claims) error {
	for key := range c.all() {
		for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "nbf", "nonce", "azp", "at_hash", "auth_time", "sid", "jti", "events", "email_verified"} {
			if key != name && strings.EqualFold(key, name) {
				return fmt.Errorf("%s is written in another case", name)
			}
		}
	}
	return nil
}

func (o *OIDC) checkIssuer(c Claims) error {
	iss, _ := c.all()["iss"].(string)
	// The one provider that is known to leave its own scheme out; go-oidc
	// allows the same.
	google := o.cfg.Issuer == "https://accounts.google.com" && iss == "accounts.google.com"
	if iss != o.cfg.Issuer && !google {
		return errors.New("iss is missing or another issuer's")
	}
	return nil
}

// checkAudience also holds azp to this client whenever it is there, and wants
// it when there are several audiences (OpenID Connect Core 1.0 section
// 3.1.3.7, numbers 3 to 5).
func (o *OIDC) checkAudience(c Claims) error {
	var several bool
	switch aud := c.all()["aud"].(type) {
	case string:
		if aud != o.cfg.ClientID {
			return errors.New("aud is another client")
		}
	case []any:
		ours := false
		for _, a := range aud {
			text, ok := a.(string)
			if !ok {
				return errors.New("aud is not text")
			}
			ours = ours || text == o.cfg.ClientID
		}
		if !ours {
			return errors.New("aud does not name this client")
		}
		several = len(aud) > 1
	default:
		return errors.New("aud is missing or not text")
	}
	azp, there := c.all()["azp"]
	if there && azp != o.cfg.ClientID {
		return errors.New("azp is another client")
	}
	if several && !there {
		return errors.New("several audiences and no azp")
	}
	return nil
}

func subject(c Claims) (string, error) {
	sub, _ := c.all()["sub"].(string)
	switch {
	case strings.TrimSpace(sub) == "":
		return "", errors.New("sub is missing or not text")
	case len(sub) > maxSubject:
		return "", fmt.Errorf("sub is longer than %d bytes", maxSubject)
	}
	return sub, nil
}

func (o *OIDC) checkTimes(tok *idToken) error {
	now := o.now()
	var ok bool
	if tok.expires, ok = instant(tok.claims, "exp"); !ok {
		return errors.New("exp is missing or not a time")
	}
	if tok.issued, ok = instant(tok.claims, "iat"); !ok {
		return errors.New("iat is missing or not a time")
	}
	if _, there := tok.claims.all()["nbf"]; there {
		nbf, ok := instant(tok.claims, "nbf")
		if !ok || nbf.After(now.Add(iatFuture)) {
			return errors.New("nbf is not a time or in the future")
		}
	}
	switch {
	case now.After(tok.expires.Add(expLeeway)):
		return errors.New("the token has expired")
	case tok.issued.After(now.Add(iatFuture)):
		return errors.New("iat is in the future")
	case tok.issued.Before(now.Add(-iatPast)):
		return errors.New("iat is more than a day ago")
	}
	return nil
}

// instant reads a NumericDate (RFC 7519 section 2), which may have a fraction.
func instant(c Claims, name string) (time.Time, bool) {
	n, ok := c.all()[name].(json.Number)
	if !ok {
		return time.Time{}, false
	}
	f, err := n.Float64()
	if err != nil || f < 0 || f > 253402300799 { // the end of the year 9999
		return time.Time{}, false
	}
	sec := int64(f)
	return time.Unix(sec, int64((f-float64(sec))*1e9)), true
}
