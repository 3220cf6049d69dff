package scim

import (
	"bytes"
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

func (t *Target) user(ctx context.Context, name string) (*resource, error) {
	return t.search(ctx, "Users", "userName", name)
}

// search finds the one resource by a name; nil when there is none. A userName is
// the same in any ASCII case (RFC 7643 section 4.1.1), a group's name is ours.
func (t *Target) search(ctx context.Context, kind, attribute, value string) (*resource, error) {
	var found []resource
	query := url.Values{"filter": {attribute + " eq " + quote(value)}, "count": {strconv.Itoa(pageSize)}}
	if kind == "Groups" {
		query.Set("excludedAttributes", "members") // of a large group
	}
	for start, page := 1, 0; ; page++ {
		query.Set("startIndex", strconv.Itoa(start))
		answer, err := t.do(ctx, http.MethodGet, kind+"?"+query.Encode(), nil, "")
		if err != nil {
			return nil, err
		}
		if !answer.OK() {
			return nil, t.fault("search "+kind, answer)
		}
		var list struct {
			Total     *int       `json:"totalResults"`
			Resources []resource `json:"Resources"`
		}
		if json.Unmarshal(answer.Body, &list) != nil || list.Total == nil {
			return nil, fmt.Errorf("scim: search %s: the answer is no list", kind)
		}
		for _, r := range list.Resources {
			if r.ID != "" && (kind == "Users" && strings.EqualFold(r.UserName, value) || kind == "Groups" && r.DisplayName == value) {
				found = append(found, r)
			}
		}
		start += len(list.Resources)
		if len(list.Resources) == 0 || start > *list.Total {
			break
		}
		if page == maxPages {
			return nil, outbound.Refused(fmt.Errorf("scim: search %s: the target answers with everything there is: it has no filters", kind))
		}
	}
	if len(found) > 1 {
		return nil, outbound.Refused(fmt.Errorf("scim: search %s: %d have the same %s", kind, len(found), attribute))
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// quote writes a string of a filter, which is JSON's (RFC 7644 section 3.4.2.2).
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string can be
	return strings.TrimSuffix(b.String(), "\n")
}

func (t *Target) do(ctx context.Context, method, path string, body any, ifMatch string) (*outbound.Answer, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, outbound.Refused(fmt.Errorf("scim: %w", err))
		}
	}
	req, err := http.NewRequest(method, t.base+"/"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, outbound.Refused(errors.New("scim: the address is not one"))
	}
	req.Header.Set("Accept", mediaType+", application/json")
	req.Header.Set("Authorization", "Bearer "+t.cfg.Token)
	if body != nil {
		req.Header.Set("Content-Type", mediaType)
	}
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	answer, err := t.client.Do(ctx, req, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("scim: %w", err)
	}
	return answer, nil
}

// fault says what was refused, with the one word of the answer that is known
// beforehand.
func (t *Target) fault(what string, a *outbound.Answer) error {
	if word := scimType(a); word != "" {
		what += " (" + word + ")"
	}
	return a.Fault("scim: "+what, t.now())
}

// scimType is the detail error of an answer (RFC 7644 section 3.12, table 9).
func scimType(a *outbound.Answer) string {
	var e struct {
		ScimType string `json:"scimType"`
	}
	words := []string{"invalidFilter", "tooMany", "uniqueness", "mutability", "invalidSyntax", "invalidPath", "noTarget", "invalidValue", "invalidVers", "sensitive"}
	if json.Unmarshal(a.Body, &e) != nil || !slices.Contains(words, e.ScimType) {
		return ""
	}
	return e.ScimType
}
