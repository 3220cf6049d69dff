package admin

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/groupgate/groupgate/groups"
)

// maxLines bounds the members of one file.
const maxLines = 200_000

// CSVLine names one person: by user name, else by e-mail address.
type CSVLine struct {
	Line  int // in the file, from 1
	User  string
	Email string
}

// LineFault is what is wrong with one line of a CSV file.
type LineFault struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

func (f LineFault) Error() string { return fmt.Sprintf("line %d: %s", f.Line, f.Message) }

// ParseCSV reads the people a CSV file (RFC 4180) names. The first line heads
// the columns; "user" and "email" count, upper and lower case alike, and where
// a line has both the user name does. A byte order mark is skipped. What is
// wrong with lines is an error that joins one [LineFault] for each, beside the
// lines that are right; a reader's own error is returned as it is.
func ParseCSV(r io.Reader) ([]CSVLine, error) {
	in := bufio.NewReader(r)
	if mark, _ := in.Peek(3); string(mark) == "\ufeff" {
		_, _ = in.Discard(3) // they were peeked at
	}
	rd := csv.NewReader(in)
	rd.FieldsPerRecord = -1 // a short line is a fault of that line
	rd.ReuseRecord = true
	head, err := rd.Read()
	if err == io.EOF {
		return nil, LineFault{1, "there is no header line"}
	}
	if err != nil {
		return nil, formFault(err)
	}
	user, email, err := columns(head)
	if err != nil {
		return nil, err
	}
	var lines []CSVLine
	var faults []error
	for {
		rec, err := rd.Read()
		if err == io.EOF {
			return lines, errors.Join(faults...)
		}
		if err != nil {
			// Where a quote is wrong, what follows cannot be told apart.
			return nil, joinFaults(faults, formFault(err))
		}
		at, _ := rd.FieldPos(0)
		if len(lines)+len(faults) == maxLines {
			return nil, joinFaults(faults, LineFault{at, fmt.Sprintf("more than %d lines", maxLines)})
		}
		line := CSVLine{at, field(rec, user), field(rec, email)}
		if msg := line.fault(); msg != "" {
			faults = append(faults, LineFault{at, msg})
			continue
		}
		lines = append(lines, line)
	}
}

func field(rec []string, column int) string {
	if column < 0 || column >= len(rec) {
		return ""
	}
	return strings.TrimSpace(rec[column])
}

func (l *CSVLine) fault() string {
	switch {
	case !plain(l.User) || !plain(l.Email):
		return "not text in UTF-8"
	case l.User == "" && l.Email == "":
		return "names nobody"
	}
	return ""
}

// columns finds the two that count; -1 is of one that is not there.
func columns(head []string) (user, email int, err error) {
	at := map[string]int{"user": -1, "email": -1}
	for i, name := range head {
		if !utf8.ValidString(name) {
			return 0, 0, LineFault{1, "not text in UTF-8"}
		}
		name = strings.ToLower(strings.TrimSpace(name))
		column, counts := at[name]
		if counts && column >= 0 {
			return 0, 0, LineFault{1, fmt.Sprintf("the column %q stands twice", name)}
		}
		if counts {
			at[name] = i
		}
	}
	if at["user"] < 0 && at["email"] < 0 {
		msg := `there is no column "user" or "email"`
		if len(head) == 1 && strings.ContainsAny(head[0], ";\t") {
			msg += "; columns are separated by commas"
		}
		return 0, 0, LineFault{1, msg}
	}
	return at["user"], at["email"], nil
}

func formFault(err error) error {
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		return LineFault{p.Line, p.Err.Error()}
	}
	return err
}

// joinFaults adds the fault that ended the reading, unless it is the reader's
// own and no fault of a line.
func joinFaults(faults []error, last error) error {
	if _, ok := errors.AsType[LineFault](last); !ok {
		return last
	}
	return errors.Join(append(faults, last)...)
}

// lineFaults takes apart what ParseCSV joined; rest is any other error.
func lineFaults(err error) (faults []LineFault, rest error) {
	if f, ok := err.(LineFault); ok {
		return []LineFault{f}, nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil, err
	}
	for _, e := range joined.Unwrap() {
		f, ok := e.(LineFault)
		if !ok {
			return nil, err
		}
		faults = append(faults, f)
	}
	return faults, nil
}

// Import makes the people a CSV file names members of a manual group: all of
// them, or none when any line has a fault. It answers how many people there
// were, and how many of them were not members before. A group that is not
// there is groups.ErrNotFound, one that SSO controls groups.ErrControlled.
func Import(ctx context.Context, dir *groups.Directory, group string, r io.Reader, actor string) (lines, added int, faults []LineFault, err error) {
	users, faults, err := readImport(ctx, dir, group, r)
	if err == nil && len(users) > 0 {
		added, err = dir.AddMembers(ctx, group, users, actor)
	}
	return len(users), added, faults, err
}

// tryImport answers what Import would, and writes nothing.
func tryImport(ctx context.Context, dir *groups.Directory, group string, r io.Reader) (lines, added int, faults []LineFault, err error) {
	users, faults, err := readImport(ctx, dir, group, r)
	if err != nil || faults != nil {
		return 0, 0, faults, err
	}
	there, err := dir.Store().CountMembersAmong(ctx, group, users)
	return len(users), len(users) - there, nil, err
}

// readImport finds the people of a file. With faults there are none.
func readImport(ctx context.Context, dir *groups.Directory, group string, r io.Reader) (users []groups.UserID, faults []LineFault, err error) {
	g, err := dir.Store().Group(ctx, group)
	if err != nil {
		return nil, nil, fmt.Errorf("group %q: %w", group, err)
	}
	if g.Control == groups.SSO {
		return nil, nil, fmt.Errorf("group %q: %w", group, groups.ErrControlled)
	}
	people, err := ParseCSV(r)
	if err != nil {
		if faults, err = lineFaults(err); err != nil {
			return nil, nil, err
		}
	}
	users, unknown, err := findPeople(ctx, dir.Store(), people)
	if err != nil {
		return nil, nil, err
	}
	if faults = append(faults, unknown...); faults != nil {
		slices.SortFunc(faults, func(a, b LineFault) int { return cmp.Compare(a.Line, b.Line) })
		return nil, faults, nil
	}
	return users, nil, nil
}

func findPeople(ctx context.Context, store groups.Reader, people []CSVLine) (users []groups.UserID, faults []LineFault, err error) {
	first := make(map[groups.UserID]int, len(people))
	for _, p := range people {
		id, msg, err := findPerson(ctx, store, p)
		if err != nil {
			return nil, nil, err
		}
		if line, twice := first[id]; msg == "" && twice {
			msg = fmt.Sprintf("the same person as in line %d", line)
		}
		if msg != "" {
			faults = append(faults, LineFault{p.Line, msg})
			continue
		}
		first[id] = p.Line
		users = append(users, id)
	}
	return users, faults, nil
}

func findPerson(ctx context.Context, store groups.Reader, p CSVLine) (id groups.UserID, fault string, err error) {
	if p.User != "" {
		u, err := store.UserByName(ctx, p.User)
		if name := asWritten(p.User); errors.Is(err, groups.ErrNotFound) && name != p.User {
			u, err = store.UserByName(ctx, name)
		}
		if errors.Is(err, groups.ErrNotFound) {
			return 0, fmt.Sprintf("there is no user %q", p.User), nil
		}
		if err != nil {
			return 0, "", err
		}
		return u.ID, "", nil
	}
	found, err := store.UsersByEmail(ctx, p.Email)
	switch {
	case err != nil:
		return 0, "", err
	case len(found) == 0:
		return 0, fmt.Sprintf("nobody has the e-mail address %q", p.Email), nil
	case len(found) > 1:
		return 0, fmt.Sprintf("several people have the e-mail address %q: name the user", p.Email), nil
	}
	return found[0].ID, "", nil
}

func (s *Server) importMembers(x *exchange) error {
	if err := x.wantType("text/csv"); err != nil {
		return err
	}
	q, err := x.query()
	if err != nil {
		return err
	}
	dry, err := boolParam(q, "dry_run")
	if err != nil {
		return err
	}
	var lines, added int
	var faults []LineFault
	body := &bodyReader{r: http.MaxBytesReader(x.ResponseWriter, x.r.Body, maxCSV)}
	if dry {
		lines, added, faults, err = tryImport(x.r.Context(), s.dir, x.args[0], body)
	} else {
		lines, added, faults, err = Import(x.r.Context(), s.dir, x.args[0], body, x.from.actor)
	}
	switch {
	case body.err != nil:
		return bodyFault(body.err)
	case faults != nil:
		p := newProblem(422, "invalid", "Invalid content", "Nothing was imported. See faults.")
		p.Faults = faults
		return p
	case errors.Is(err, groups.ErrNotFound):
		return notFound("There is no group %q.", x.args[0])
	case err != nil:
		return err
	}
	return x.ok(map[string]int{"lines": lines, "added": added})
}

// bodyReader keeps apart a body that does not arrive and a store that does not
// answer.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}
