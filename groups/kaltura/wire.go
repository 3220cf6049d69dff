package kaltura

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/groupgate/groupgate/groups/outbound"
)

const (
	sessionAdmin  = 2     // KalturaSessionType
	sessionExpiry = 86400 // seconds; one that is over is noticed by INVALID_KS
)

// params are the fields of a request; those of an object are written
// "object:field".
type params map[string]string

// object is an answer of which nothing but its being one matters.
type object struct {
	Type string `json:"objectType"`
}

func (o object) valid() bool { return o.Type != "" }

// apiError is a KalturaAPIException. Its code is one of a list, or else nothing
// of it is told: what a server writes may be anything.
type apiError struct{ where, code string }

func (e *apiError) Error() string {
	if !slices.Contains(codes, e.code) {
		return "kaltura: " + e.where + ": the target answers with an exception"
	}
	return "kaltura: " + e.where + ": the target answers " + e.code
}

var codes = []string{
	"ACTION_FORBIDDEN", "DUPLICATE_USER_BY_ID", "DUPLICATE_USER_BY_LOGIN_ID", "GROUPS_CANNOT_CO_EXIST", "GROUP_NOT_FOUND",
	"GROUP_USER_ALREADY_EXISTS", "GROUP_USER_DOES_NOT_EXISTS", "INTERNAL_DATABASE_ERROR", "INTERNAL_SERVERL_ERROR",
	"INVALID_FIELD_VALUE", "INVALID_KS", "INVALID_PARTNER_ID", "INVALID_USER_ID", "MISSING_KS", "PROPERTY_VALIDATION_CANNOT_BE_NULL",
	"PROPERTY_VALIDATION_NO_INSERT_PERMISSION", "SERVICE_ACCESS_CONTROL_RESTRICTED", "SERVICE_DOES_NOT_EXISTS", "SERVICE_FORBIDDEN",
	"START_SESSION_ERROR", "UNKNOWN_PARTNER_ID", "UNSAFE_HTML_TAGS", "USER_EXCEEDED_MAX_GROUPS", "USER_NOT_FOUND",
}

// passing are the codes of what may be over by the next attempt. "SERVERL" is
// how Kaltura writes it.
var passing = []string{"INTERNAL_SERVERL_ERROR", "INTERNAL_DATABASE_ERROR", "INVALID_KS", "MISSING_KS"}

// is reports whether an error is the target's answer with one of these codes.
func is(err error, codes ...string) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && slices.Contains(codes, e.code)
}

// ask calls an action within the session, once more with another when that one
// is over.
func ask[T any](ctx context.Context, t *Target, service, action string, p params) (T, error) {
	var out T
	for again := false; ; again = true {
		ks, err := t.session(ctx)
		if err != nil {
			return out, err
		}
		err = t.call(ctx, service, action, ks, p, &out)
		if !is(err, "INVALID_KS", "MISSING_KS") {
			return out, err
		}
		t.forget(ks)
		if again {
			return out, err
		}
	}
}

// session answers the one that runs, or another. Privileges are not asked for:
// groups need none beside an administrator's session.
func (t *Target) session(ctx context.Context) (ks string, err error) {
	t.mu.Lock()
	ks = t.ks
	t.mu.Unlock()
	if ks != "" {
		return ks, nil
	}
	err = t.call(ctx, "session", "start", "", params{
		"secret": t.cfg.AdminSecret, "partnerId": strconv.Itoa(t.cfg.PartnerID),
		"type": strconv.Itoa(sessionAdmin), "expiry": strconv.Itoa(sessionExpiry),
	}, &ks)
	if err != nil {
		return "", err
	}
	if ks == "" {
		return "", errors.New("kaltura: session.start: the answer is no session")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ks = ks
	return ks, nil
}

// forget lets go of a session, unless another came meanwhile.
func (t *Target) forget(ks string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ks == ks {
		t.ks = ""
	}
}

// call asks for one action. Secret and session are in the body, never in the
// address. A failure is answered with 200 as well, as a KalturaAPIException.
func (t *Target) call(ctx context.Context, service, action, ks string, p params, into any) error {
	where := service + "." + action
	form := url.Values{"format": {"1"}} // KalturaResponseType: JSON
	if ks != "" {
		form.Set("ks", ks)
	}
	for k, v := range p {
		form.Set(k, v)
	}
	req, err := http.NewRequest(http.MethodPost, t.base+"/service/"+service+"/action/"+action, strings.NewReader(form.Encode()))
	if err != nil {
		return outbound.Refused(errors.New("kaltura: the address is not one"))
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := t.client.Do(ctx, req, maxAnswer)
	if err != nil {
		return fmt.Errorf("kaltura: %w", err)
	}
	if !answer.OK() {
		return answer.Fault("kaltura: "+where, t.now())
	}
	var failed struct {
		Type string `json:"objectType"`
		Code string `json:"code"`
	}
	_ = json.Unmarshal(answer.Body, &failed) // an answer may be a text, or null
	if failed.Type == "KalturaAPIException" {
		err := &apiError{where, failed.Code}
		if slices.Contains(passing, failed.Code) {
			return err
		}
		return outbound.Refused(err)
	}
	if v, checks := into.(interface{ valid() bool }); json.Unmarshal(answer.Body, into) != nil || checks && !v.valid() {
		return fmt.Errorf("kaltura: %s: the answer is not what was asked for", where)
	}
	return nil
}
