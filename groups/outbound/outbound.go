// Package outbound is how targets are spoken to over HTTP: with bounded waits,
// bounded answers, no redirects, and errors that hold nothing of an answer but
// its status.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/groupgate/groupgate/groups"
)

const (
	dialLimit   = 5 * time.Second
	answerLimit = 20 * time.Second // for one answer, whole
)

// ErrTooLong is an answer that nobody reads to its end.
var ErrTooLong = errors.New("the answer is too long")

// Client speaks to one target.
type Client struct{ http *http.Client }

// New makes a client. Redirects are not followed: they would carry the request,
// and what proves that it is ours, somewhere else (RFC 9110 section 15.4).
func New() *Client {
	return &Client{&http.Client{
		Timeout: answerLimit,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialLimit, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: dialLimit,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Answer is a whole answer.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request and reads the answer, up to so many bytes. The error of an
// answer that did not come may be mended by trying again.
func (c *Client) Do(ctx context.Context, req *http.Request, most int64) (*Answer, error) {
	req = req.WithContext(ctx)
	req.Header.Set("User-Agent", "groupgate")
	res, err := c.http.Do(req)
	if err != nil {
		// The library puts the address in front, which may be secret.
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			err = fmt.Errorf("no answer in %s", answerLimit)
		}
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return nil, errors.New("the answer broke off")
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%w: over %d bytes", ErrTooLong, most)
	}
	return &Answer{res.StatusCode, res.Header, body}, nil
}

// OK reports whether the status is a success.
func (a *Answer) OK() bool { return a.Status >= 200 && a.Status < 300 }

// Fault is the error that a status means; what was asked stands before it. A
// client error is a refusal, but for those that say "later" (RFC 9110 section
// 15.5.9, RFC 8470 section 5.2, RFC 6585 section 4).
func (a *Answer) Fault(what string, now time.Time) error {
	err := fmt.Errorf("%s: the target answers %d", what, a.Status)
	switch {
	case a.Status >= 300 && a.Status < 400:
		return refusal{fmt.Errorf("%w: redirects are not followed", err)}
	case a.Status == http.StatusRequestTimeout, a.Status == http.StatusTooEarly, a.Status == http.StatusTooManyRequests, a.Status >= 500:
		if after, ok := retryAfter(a.Header.Get("Retry-After"), now); ok {
			return &groups.TargetBusy{After: after, Err: err}
		}
		return err
	case a.Status >= 400:
		return refusal{err}
	}
	return err // 1xx and the like: it does not speak HTTP as we do
}

// Refused marks an error as a refusal, and leaves its text alone.
func Refused(err error) error { return refusal{err} }

type refusal struct{ error }

func (r refusal) Unwrap() []error { return []error{r.error, groups.ErrTargetRefused} }

// retryAfter reads seconds or a date (RFC 9110 section 10.2.3).
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	if n, err := strconv.ParseInt(text, 10, 32); err == nil && n >= 0 {
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}
