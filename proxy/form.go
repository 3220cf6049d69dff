package proxy

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
)

// maxMessageForm is what a form may take in which a browser brings a source's
// message: 512 KiB of XML in base64, and what stands around it.
const maxMessageForm = 768 << 10

// drainBody is how much more than allowed is read, and thrown away.
const drainBody = 2 << 20

// readForm reads the body of a request that must be a form, once. Who reads
// r.PostForm afterwards finds the same. The query is not looked at.
func readForm(r *http.Request, limit int64) (url.Values, error) {
	types := r.Header["Content-Type"]
	if len(types) != 1 {
		return nil, fmt.Errorf("%w: there is not one content type", errMedia)
	}
	if kind, _, err := mime.ParseMediaType(types[0]); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, fmt.Errorf("%w: the body is not a form", errMedia)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: the body broke off", errForm)
	}
	if int64(len(body)) > limit {
		// Who is cut off while writing does not read why: the connection is
		// reset under it. Who sends much more has been told in other ways.
		_, _ = io.CopyN(io.Discard, r.Body, drainBody)
		return nil, errBody
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, fmt.Errorf("%w: the form is malformed", errForm)
	}
	r.PostForm = form
	return form, nil
}
