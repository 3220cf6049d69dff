package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// Explained is what "explain" prints.
type Explained struct {
	// Directory is how the person was found there; nil for a file of claims.
	Directory *claims.Found `json:"directory,omitempty"`
	*groups.Explained
	Headers []Header `json:"headers"`
	Problem string   `json:"problem,omitempty"` // why a request would not be forwarded
}

// Header is one line the upstream would get.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Explaining is what to explain.
type Explaining struct {
	Source  string
	Subject string // of a known person, for a file of claims
	// Of these two there is exactly one.
	Claims string // a file; - is In
	Person string // a user name, to be looked up in the source's directory
	JSON   bool
	In     io.Reader
}

// Explain says, value by value, what the rules make of claims. The error is
// ErrSilent when the output says that nobody was found.
func Explain(ctx context.Context, path string, x Explaining, out io.Writer) error {
	switch {
	case (x.Claims == "") == (x.Person == ""):
		return errors.New("wanted: a file of claims, or --person USERNAME to read them from the directory, exactly one of the two")
	case x.Person != "" && x.Subject != "":
		return errors.New("--user goes with a file of claims; --person finds who that is by itself")
	}
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	src := cfg.Source(x.Source)
	if src == nil {
		var names []string
		for _, s := range cfg.Sources {
			names = append(names, s.Name)
		}
		return fmt.Errorf("--source %q: there is no such source in %s; there is %s", x.Source, path, list(names))
	}
	if x.Person != "" && src.LDAP == nil {
		return fmt.Errorf("--person: the source %q is no directory that could be asked; give a file of claims", x.Source)
	}
	dir, done, err := offline(ctx, cfg)
	if err != nil {
		return err
	}
	defer done()
	full := Explained{Headers: []Header{}}
	id := &claims.Identity{Source: x.Source, Subject: x.Subject, IssuedAt: time.Now()}
	if x.Person == "" {
		id.Claims, err = readClaims(x.Claims, x.In)
	} else if full.Directory, err = lookUp(ctx, cfg, dir, src, x.Person); err == nil {
		id = full.Directory.Identity
	}
	if err != nil {
		return err
	}
	if id == nil { // nobody was found
		return errors.Join(ErrSilent, write(out, x.JSON, full))
	}
	if full.Explained, err = dir.Explain(ctx, id); err != nil {
		return err
	}
	view := &groups.View{User: statedPerson(src, id), Groups: full.Groups, Claims: id.Claims}
	lines, problem := proxy.HeaderLines(cfg.Headers, view)
	full.Problem = problem
	for _, l := range lines {
		full.Headers = append(full.Headers, Header{l[0], l[1]})
	}
	return write(out, x.JSON, full)
}

func write(out io.Writer, asJSON bool, e Explained) error {
	if asJSON {
		return writeJSON(out, e)
	}
	if e.Directory != nil {
		if err := writeFound(out, e.Directory); err != nil || e.Explained == nil {
			return err
		}
	}
	return writeExplained(out, e)
}

// lookUp asks the directory about a person, by the service account and for the
// claims that a running groupgate would ask for.
func lookUp(ctx context.Context, cfg *config.Config, dir *groups.Directory, src *claims.Config, person string) (*claims.Found, error) {
	l, err := claims.NewLDAP(claims.LDAPOptions{
		Name: src.Name, Config: *src.LDAP, Needed: func() []string { return needed(cfg, dir, src.Name) },
	})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.Find(ctx, person)
}

func writeFound(out io.Writer, f *claims.Found) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	row := func(what, text string) { fmt.Fprintf(w, "%s\t%s\n", what, text) }
	for _, s := range f.Searches {
		row("searched", s)
	}
	if f.Problem != "" {
		row("nobody", f.Problem)
		return w.Flush()
	}
	row("entry", f.Entry)
	row("subject", cmp.Or(f.Subject, "-"))
	row("account", cmp.Or(f.Account, "may sign in"))
	for _, g := range f.Groups {
		how := string(g.How)
		if len(g.Through) > 0 {
			how += " through " + strings.Join(g.Through, " > ")
		}
		fmt.Fprintf(w, "%s\t%q\t%s\n", g.Claim, g.Value, how)
	}
	for _, why := range f.Unknown {
		row("unknown", why)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// statedPerson is who a statement makes a person out to be.
func statedPerson(src *claims.Config, id *claims.Identity) groups.User {
	c, n := id.Claims, src.Identity
	return groups.User{
		Name: cmp.Or(c.Text(n.User), id.Subject, c.Text("sub"), c.Text(claims.SubjectNameID)), Email: c.Text(n.Email), Display: c.Text(n.Name),
	}
}

// maxClaimsFile is more than any token holds.
const maxClaimsFile = 8 << 20

func readClaims(file string, in io.Reader) (claims.Claims, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return claims.Claims{}, err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxClaimsFile))
	if err != nil {
		return claims.Claims{}, err
	}
	said, err := claims.Parse(bytes.TrimSpace(raw))
	if err != nil {
		return claims.Claims{}, fmt.Errorf("%s: %w (wanted: one JSON object, such as an ID token's payload or {\"memberOf\":[\"CN=...\"]})", file, err)
	}
	return said, nil
}

func writeExplained(out io.Writer, e Explained) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, c := range e.Claims.Claims {
		fmt.Fprintf(w, "claim %s: %s", c.Claim, c.State)
		if c.Why != "" {
			fmt.Fprintf(w, " (%s)", c.Why)
		}
		fmt.Fprintf(w, ", %s\n", c.Effect)
		if len(c.Values) > 0 {
			fmt.Fprintln(w, "  VALUE\tRULE\tRESULT\tGROUP\tWHY")
		}
		for _, v := range c.Values {
			writeVerdicts(w, v)
		}
		fmt.Fprintln(w)
	}
	section := func(name string, items []string) { fmt.Fprintf(w, "%s\t%s\n", name, list(items)) }
	if e.Refused != "" {
		fmt.Fprintf(w, "REFUSED\t%s\n", e.Refused)
	}
	if e.User != "" {
		fmt.Fprintf(w, "person\t%s (known)\n", e.User)
	}
	section("groups", e.Groups)
	section("added", e.Added)
	section("removed", e.Removed)
	section("kept", e.Kept)
	for _, s := range e.Skipped {
		fmt.Fprintf(w, "skipped\t%s: %s\n", s.Group, s.Reason)
	}
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "headers")
	for _, h := range e.Headers {
		fmt.Fprintf(out, "  %s: %s\n", h.Name, h.Value)
	}
	if e.Problem != "" {
		fmt.Fprintf(out, "  not forwarded: %s\n", e.Problem)
	}
	return nil
}

// maxMisses is how many rules that missed a value are listed for people; the
// rest is a number.
const maxMisses = 5

func writeVerdicts(w io.Writer, v groups.ExplainedValue) {
	value := fmt.Sprintf("%q", v.Value)
	misses := 0
	row := func(r groups.ExplainedRule) {
		result, group, rule := "miss", "-", r.Rule
		if r.Hit {
			result, group = "hit", r.Group
		}
		if r.Location != "" {
			rule = r.Location
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", value, rule, result, group, r.Why)
		value = ""
	}
	for _, r := range v.Rules {
		if r.Hit {
			row(r)
		}
	}
	for _, r := range v.Rules {
		if r.Hit {
			continue
		}
		if misses++; misses <= maxMisses {
			row(r)
		}
	}
	if misses > maxMisses {
		fmt.Fprintf(w, "  %s\t%d more rules\tmiss\t-\t\n", value, misses-maxMisses)
	}
	if len(v.Rules) == 0 {
		fmt.Fprintf(w, "  %s\t-\tmiss\t-\tno rule reads this claim\n", value)
	}
}
