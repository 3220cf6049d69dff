package claimstest

import (
	"slices"
	"time"
)

// DirectoryKnobs make the directory lie or fail. The zero value is an honest
// one. The functions are called by several connections at once.
type DirectoryKnobs struct {
	// StartTLS: "refuse" answers unavailable (52), "unknown" protocolError (2)
	// as a server without it does, "clear" answers success and goes on without
	// TLS, "close" closes the connection. Empty: honest.
	StartTLS string
	// Certificate: "expired", "other-host" (of a host elsewhere), "other-ca" (of
	// nobody known). Empty: honest. For TLS that begins from now on.
	Certificate string
	MaxTLS      uint16 // the newest version that is spoken; 0: the newest there is

	HangAccept bool                   // read what comes, answer nothing
	HangBind   bool                   // as that, from a bind on
	HangSearch func(SearchQuery) bool // as that, from a search that it holds for
	Delay      time.Duration          // before every answer

	// BindResult is the answer to a bind, by the name that binds; nil: honest.
	BindResult func(dn string) *Result
	// SearchResult ends a search that would have been answered; nil: honest.
	SearchResult func(SearchQuery) *Result
	// Continuations are sent with every search, beside its entries (RFC 4511
	// 4.5.3). An Active Directory sends some of its own.
	Continuations []string
	// Rewrite changes what a search found: what was not asked for, the same
	// twice, another name, another order. It comes before paging.
	Rewrite func(SearchQuery, []Found) []Found
	// RootDSE changes what the server says of itself.
	RootDSE func(attributes map[string][]string)

	// RangeStep is how many values of an attribute are sent at once; 0: 1500 on
	// an Active Directory, else all.
	RangeStep int
	// RangeLie: "endless" goes on for ever with the values again, "back"
	// sends the first again whatever is asked for, "hole" leaves one out after
	// each step, "silent" has no more of the attribute after the first step.
	RangeLie string
	// InChainEmpty has the in-chain rule find nothing, and call it success.
	InChainEmpty bool
	// MaxPage is how many entries a page may have, and a search that does not
	// ask for pages; 0: 1000 on an Active Directory, else any number.
	MaxPage int
	// PagesEndless gives a page after every page: the first again.
	PagesEndless bool
	// EntriesEndless sends entries until the client goes.
	EntriesEndless bool

	// Raw is sent in place of the answer to a message, as it is; nil: honest.
	// kind is that of the operation. The connection stays open, unless
	// CloseAfterRaw.
	Raw           func(kind string, messageID int64) []byte
	CloseAfterRaw bool
}

// Result is how an operation ends (RFC 4511 4.1.9).
type Result struct {
	Code      int
	Message   string
	Referrals []string
	Entries   int // of a search: so many come first; -1: all of them
}

// ADRefusal is how Active Directory refuses a bind, for a sub-code like "52e".
func ADRefusal(data string) *Result {
	return &Result{Code: 49, Message: "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data " + data + ", v4563"}
}

// Found is an entry as a search sends it.
type Found struct {
	DN         string
	Attributes []FoundAttribute
}

// FoundAttribute is one attribute of it, with options if any.
type FoundAttribute struct {
	Name   string
	Values []string
}

// Lie changes the knobs. The next message sees the change.
func (d *Directory) Lie(change func(*DirectoryKnobs)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.knobs)
}

// Honest turns all knobs back. A connection that hangs goes on hanging until
// DropConnections.
func (d *Directory) Honest() { d.Lie(func(k *DirectoryKnobs) { *k = DirectoryKnobs{} }) }

func (d *Directory) lies() DirectoryKnobs {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.knobs
}

// Operation is something that a client asked for.
type Operation struct {
	Kind string // "bind", "search", "starttls", "unbind", "abandon"; "other"
	TLS  bool   // it came over TLS
	Conn int    // which connection, counted from 1
	// BoundAs is who the connection was bound as before; empty: nobody.
	BoundAs string
	// DN and Password are those of a bind.
	DN, Password string
	Search       SearchQuery
}

// SearchQuery is a search as it was asked for.
type SearchQuery struct {
	Base       string
	Scope      int    // 0 the entry, 1 what is right below it, 2 all below and itself
	Filter     string // as text (RFC 4515)
	Attributes []string
	SizeLimit  int
	TimeLimit  int // seconds
	PageSize   int // 0: no pages are asked for
	NextPage   bool
}

func (d *Directory) note(o Operation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.operations = append(d.operations, o)
}

// Operations are all there were, in their order.
func (d *Directory) Operations() []Operation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.operations)
}

// Binds are the operations that were binds.
func (d *Directory) Binds() []Operation { return d.ofKind("bind") }

// Searches are what was searched for.
func (d *Directory) Searches() (queries []SearchQuery) {
	for _, o := range d.ofKind("search") {
		queries = append(queries, o.Search)
	}
	return queries
}

func (d *Directory) ofKind(kind string) []Operation {
	return slices.DeleteFunc(d.Operations(), func(o Operation) bool { return o.Kind != kind })
}

// Forget forgets the operations there were.
func (d *Directory) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.operations = nil
}

// Connections says how many connections there are, and how many there ever
// were.
func (d *Directory) Connections() (open, ever int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open), d.accepted
}

// DropConnections closes all connections there are, without a word.
func (d *Directory) DropConnections() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for conn := range d.open {
		_ = conn.Close()
	}
}
