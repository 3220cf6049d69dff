package claims

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Bounds of one operation with a directory.
const (
	dialTimeout      = 3 * time.Second // TCP and TLS together
	operationTimeout = 5 * time.Second
	loginTimeout     = 10 * time.Second // and of a refresh, a look-up and a probe

	maxLDAPEntries = 50_000
	maxLDAPMessage = 4 << 20  // bytes; ten times an entry with thousands of groups
	maxLDAPAnswer  = 32 << 20 // bytes of one operation
	ldapPage       = 1000     // entries; what an Active Directory gives at most by default
	maxLDAPPages   = 2 * maxLDAPEntries / ldapPage
)

// errPartial: a search ended before everything was there. What came is no
// answer: who is missing from it was not removed.
var errPartial = errors.New("the directory answered a part only")

// ldapConn is one connection, bound as the service account. Several searches
// may be under way on it.
type ldapConn struct {
	conn *ldap.Conn // nil until start
	// ad: the server is an Active Directory (its supportedCapabilities say so).
	ad bool
	// asked notes every search, when somebody wants to know.
	asked func(line string)

	wire   *ldapWire
	stream net.Conn // on the wire: TLS, or the wire itself
	lastID int64    // of the messages that are sent before start
	server *ldapServer
	root   rootDSE
	// broken: an operation was cut off; what comes next belongs to nobody.
	broken atomic.Bool
	reused bool // it lay in the pool, so the server may have closed it since
}

// dead says whether the connection can carry nothing more.
func (c *ldapConn) dead() bool { return c.broken.Load() || c.conn != nil && c.conn.IsClosing() }

// start hands the connection to the library, which reads from it from then on.
func (c *ldapConn) start() {
	_, encrypted := c.stream.(*tls.Conn)
	c.conn = ldap.NewConn(c.stream, encrypted)
	c.conn.SetTimeout(operationTimeout)
	c.conn.Start()
}

// close ends the connection at once, whatever is under way on it.
func (c *ldapConn) close() {
	if c.dead() {
		c.wire.cut() // the library's Close waits for what hangs
	}
	if c.conn != nil {
		c.conn.Close()
		return
	}
	c.stream.Close()
}

// ldapWire is the connection below TLS. It can be cut from outside, and lets
// no operation read without end.
type ldapWire struct {
	net.Conn
	left atomic.Int64
}

func (w *ldapWire) Read(p []byte) (int, error) {
	if w.left.Load() <= 0 {
		return 0, errors.New("the directory's answer is too long")
	}
	n, err := w.Conn.Read(p)
	w.left.Add(-int64(n))
	return n, err
}

// cut makes every read and write fail now.
func (w *ldapWire) cut() { _ = w.SetDeadline(time.Unix(1, 0)) }

// do runs one operation of the library within our bounds: of time, because the
// library alone waits for ever, of bytes, and of what it does with an answer
// that nobody foresaw.
func (c *ldapConn) do(ctx context.Context, f func() error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	c.wire.left.Store(maxLDAPAnswer)
	stop := context.AfterFunc(ctx, c.wire.cut)
	defer func() {
		if p := recover(); p != nil {
			c.broken.Store(true)
			err = errors.New("the answer is one that cannot be read")
		}
		if !stop() {
			c.broken.Store(true)
			err = fmt.Errorf("no answer in time: %w", ctx.Err())
		}
	}()
	return f()
}

// ldapQuery is one search.
type ldapQuery struct {
	base       string
	scope      int // ldap.Scope...
	filter     string
	attributes []string
	limit      int // of entries; more is errPartial. 0: maxLDAPEntries
}

// search answers every entry that fits, or an error: ErrUnavailable, or
// errPartial, both wrapped. Referrals are not followed. A base that does not
// exist has no entries. Beside errPartial it answers what came.
func (c *ldapConn) search(ctx context.Context, q ldapQuery) ([]*ldap.Entry, error) {
	if c.asked != nil {
		c.asked(q.String())
	}
	limit := q.limit
	if limit <= 0 {
		limit = maxLDAPEntries
	}
	req := &ldap.SearchRequest{
		BaseDN: q.base, Scope: q.scope, Filter: q.filter, Attributes: q.attributes,
		SizeLimit: max(q.limit, 0), EnforceSizeLimit: true,
	}
	// Without a limit none is sent: OpenLDAP refuses a search that asks for more
	// than its own limit, where it would have cut the answer and said so.
	var paging *ldap.ControlPaging
	if c.root.paged && q.scope != ldap.ScopeBaseObject && limit > ldapPage {
		paging = ldap.NewControlPaging(ldapPage)
		req.Controls, req.SizeLimit = []ldap.Control{paging}, 0 // what all pages hold is counted below
	}
	var all []*ldap.Entry
	for range maxLDAPPages {
		var page *ldap.SearchResult
		err := c.do(ctx, func() (err error) {
			page, err = c.conn.Search(req)
			return err
		})
		if page != nil {
			all = append(all, page.Entries...)
		}
		if err != nil {
			return c.searchFailed(all, err)
		}
		if len(all) > limit {
			return all, fmt.Errorf("search: %w: more than %d entries", errPartial, limit)
		}
		cookie := nextPage(paging, page.Controls)
		if cookie == nil {
			return all, nil
		}
		paging.SetCookie(cookie)
	}
	return all, fmt.Errorf("search: %w: pages without end", errPartial)
}

// nextPage answers nil behind the last page (RFC 2696 section 3).
func nextPage(asked *ldap.ControlPaging, controls []ldap.Control) []byte {
	got, ok := ldap.FindControl(controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
	if asked == nil || !ok || len(got.Cookie) == 0 {
		return nil
	}
	return got.Cookie
}

func (c *ldapConn) searchFailed(came []*ldap.Entry, err error) ([]*ldap.Entry, error) {
	switch {
	case errors.Is(err, ldap.ErrSizeLimitExceeded):
		// The library stopped reading; the rest of the answer is on its way.
		c.broken.Store(true)
		return came, fmt.Errorf("search: %w: more entries than were asked for", errPartial)
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultSizeLimitExceeded, ldap.LDAPResultAdminLimitExceeded):
		return came, fmt.Errorf("search: %w: %s", errPartial, ldapCause(err))
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) && len(came) == 0:
		return nil, nil
	}
	if !isResult(err) {
		c.broken.Store(true)
	}
	return nil, fmt.Errorf("search: %w: %s", ErrUnavailable, ldapCause(err))
}

// isResult says whether the server itself gave the error as a result (RFC 4511
// section 4.1.9). Everything else is of the network, or of an answer that
// cannot be read.
func isResult(err error) bool {
	var e *ldap.Error
	return errors.As(err, &e) && e.ResultCode < ldap.ErrorNetwork
}

// ldapCause is an error in words for the log. What the server says with a
// result is left out: it may repeat what somebody typed.
func ldapCause(err error) string {
	var e *ldap.Error
	switch {
	case !errors.As(err, &e):
		return err.Error()
	case e.ResultCode < ldap.ErrorNetwork:
		return fmt.Sprintf("result %d (%s)", e.ResultCode, strings.ToLower(ldap.LDAPResultCodeMap[e.ResultCode]))
	case e.ResultCode == ldap.ErrorNetwork:
		return e.Err.Error()
	case e.ResultCode == ldap.ErrorFilterCompile:
		return "the filter cannot be read"
	default:
		return "the answer cannot be read"
	}
}

// String is the search as one line, in the manner of RFC 4516.
func (q ldapQuery) String() string {
	scope := map[int]string{ldap.ScopeBaseObject: "base", ldap.ScopeSingleLevel: "one", ldap.ScopeWholeSubtree: "sub"}[q.scope]
	return fmt.Sprintf("base %q, scope %s, filter %s", q.base, scope, q.filter)
}
