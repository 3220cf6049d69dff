package claims

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"go.uber.org/zap"
)

// userinfo asks the userinfo endpoint (OpenID Connect Core 1.0 section 5.3).
// An endpoint that does not answer is not an error: the claims are then
// incomplete, so that nothing missing counts as absent. An answer about
// somebody else, or one that is not an object, is a broken protocol.
func (o *OIDC) userinfo(ctx context.Context, p *provider, accessToken, sub string) (Claims, error) {
	ans, err := fetch(ctx, o.client, p.UserInfoURL, accessToken)
	if err == nil && ans.status != http.StatusOK {
		err = fmt.Errorf("status %d", ans.status)
	}
	if err != nil {
		return o.silent(err), nil
	}
	body := ans.body
	if mediaType, _, _ := mime.ParseMediaType(ans.contentType); mediaType == "application/jwt" {
		body, err = p.keys.VerifySignature(ctx, strings.TrimSpace(string(ans.body)))
		if errors.Is(err, ErrUnavailable) {
			return o.silent(err), nil
		}
		if err != nil {
			return Claims{}, o.errorf("read userinfo", ErrProtocol, "%w", err)
		}
	}
	c, err := o.checkUserinfo(body, sub)
	if err != nil {
		return Claims{}, o.errorf("read userinfo", ErrProtocol, "%w", err)
	}
	return c, nil
}

func (o *OIDC) silent(err error) Claims {
	o.log.Warn("userinfo did not answer; claims that are missing count as unknown",
		zap.String("source", o.name), zap.Error(err))
	return Claims{}.WithIncomplete("userinfo did not answer: " + briefly(err))
}

// briefly names a failure in a word or two: it is stored and shown.
func briefly(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, ErrUnavailable):
		return "its signature could not be checked"
	case strings.HasPrefix(err.Error(), "status "), strings.HasPrefix(err.Error(), "the answer "):
		return err.Error()
	default:
		return "not reached"
	}
}

// checkUserinfo holds an answer to the ID token's subject (section 5.3.2: sub
// must be compared), and a signed one to issuer and audience when it has them.
func (o *OIDC) checkUserinfo(body []byte, sub string) (Claims, error) {
	c, err := Parse(body)
	if err != nil {
		return Claims{}, errors.New("not one unambiguous JSON object")
	}
	if err := exactKeys(c); err != nil {
		return Claims{}, err
	}
	if got, _ := c.all()["sub"].(string); got == "" || got != sub {
		return Claims{}, errors.New("sub is missing or another person's")
	}
	if _, there := c.all()["iss"]; there {
		if err := o.checkIssuer(c); err != nil {
			return Claims{}, err
		}
	}
	if _, there := c.all()["aud"]; there {
		if err := o.checkAudience(c); err != nil {
			return Claims{}, err
		}
	}
	return c, nil
}
