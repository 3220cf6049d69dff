package admin_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

func TestParseCSV(t *testing.T) {
	t.Parallel()
	people := func(p ...admin.CSVLine) []admin.CSVLine { return p }
	for name, tc := range map[string]struct {
		in   string
		want []admin.CSVLine
		err  string
	}{
		"user":                   {"user\nalice\nbob\n", people(admin.CSVLine{2, "alice", ""}, admin.CSVLine{3, "bob", ""}), ""},
		"email":                  {"email\na@example.com\n", people(admin.CSVLine{2, "", "a@example.com"}), ""},
		"both":                   {"email,user\na@example.com,alice\nb@example.com,\n", people(admin.CSVLine{2, "alice", "a@example.com"}, admin.CSVLine{3, "", "b@example.com"}), ""},
		"other columns":          {"Name,USER,x\n\"A, B\",alice,1\n", people(admin.CSVLine{2, "alice", ""}), ""},
		"header's case, blanks":  {" Email , x\n a@example.com ,\n", people(admin.CSVLine{2, "", "a@example.com"}), ""},
		"byte order mark":        {"\ufeffuser\nalice\n", people(admin.CSVLine{2, "alice", ""}), ""},
		"mark before a quote":    {"\ufeff\"user\"\nalice\n", people(admin.CSVLine{2, "alice", ""}), ""},
		"carriage returns":       {"user\r\nalice\r\n", people(admin.CSVLine{2, "alice", ""}), ""},
		"no last newline":        {"user\nalice", people(admin.CSVLine{2, "alice", ""}), ""},
		"empty lines, real ones": {"user\n\nalice\n\n\nbob\n", people(admin.CSVLine{3, "alice", ""}, admin.CSVLine{6, "bob", ""}), ""},
		"lines inside quotes":    {"x,user\n\"1\n2\",alice\n3,bob\n", people(admin.CSVLine{2, "alice", ""}, admin.CSVLine{4, "bob", ""}), ""},
		"header only":            {"user\n", nil, ""},

		"nothing":            {"", nil, "line 1: there is no header line"},
		"mark only":          {"\ufeff", nil, "line 1: there is no header line"},
		"no column":          {"name,id\nalice,1\n", nil, `line 1: there is no column "user" or "email"`},
		"semicolons":         {"user;email\nalice;x\n", nil, `line 1: there is no column "user" or "email"; columns are separated by commas`},
		"column twice":       {"user,User\na,b\n", nil, `line 1: the column "user" stands twice`},
		"UTF-16":             {"\xff\xfeu\x00s\x00", nil, "line 1: not text in UTF-8"},
		"not UTF-8":          {"user\n\xff\nalice\n", people(admin.CSVLine{3, "alice", ""}), "line 2: not text in UTF-8"},
		"nobody":             {"user,x\n,1\nalice,1\n \n", people(admin.CSVLine{3, "alice", ""}), "line 2: names nobody\nline 4: names nobody"},
		"short line":         {"x,user\n1\n1,alice\n", people(admin.CSVLine{3, "alice", ""}), "line 2: names nobody"},
		"quote inside":       {"user\nal\"ice\n", nil, "line 2: bare \" in non-quoted-field"},
		"quote not closed":   {"user\n\n\"alice\n", nil, "line 3: extraneous or missing \" in quoted-field"},
		"fault, then broken": {"user,x\n,1\n\"a\"b\n", nil, "line 2: names nobody\nline 3: extraneous or missing \" in quoted-field"},
		"too many":           {"user\n" + strings.Repeat("a\n", 200_001), nil, "line 200002: more than 200000 lines"},
	} {
		got, err := admin.ParseCSV(strings.NewReader(tc.in))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != tc.err {
			t.Errorf("%s: error %q, want %q", name, text, tc.err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

func TestParseCSVGivesTheReadersError(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	for _, before := range []string{"", "user\n", "user,x\n,1\nalice,1\n", "user\n\"al"} {
		_, err := admin.ParseCSV(io.MultiReader(strings.NewReader(before), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("after %q: %v", before, err)
		}
	}
}

func FuzzParseCSV(f *testing.F) {
	for _, s := range []string{
		"user\nalice\n", "\ufeffemail,user\na@b,\n", "user,x\n\"a\nb\",1\n", "", "user;email\n", "user\n\"", "\"user\"\r\n\"a\"\"b\"\r\n", "user\n\xff\n", "user,email,user\n", ",\n,\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		lines, err := admin.ParseCSV(strings.NewReader(in))
		last := 1
		for _, l := range lines {
			if l.Line <= last {
				t.Fatalf("line %d after %d", l.Line, last)
			}
			last = l.Line
			if l.User == "" && l.Email == "" || l.User != strings.TrimSpace(l.User) {
				t.Fatalf("a line that names nobody: %+v", l)
			}
		}
		if last > strings.Count(in, "\n")+strings.Count(in, "\r")+1 {
			t.Fatalf("line %d of a file that has fewer", last)
		}
		if err == nil {
			// What was understood is understood again when it is written plainly.
			var b strings.Builder
			b.WriteString("email,user\n")
			quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
			for _, l := range lines {
				fmt.Fprintf(&b, "%s,%s\n", quote(l.Email), quote(l.User))
			}
			again, err := admin.ParseCSV(strings.NewReader(b.String()))
			if err != nil || len(again) != len(lines) {
				t.Fatalf("%d lines, written again %d: %v", len(lines), len(again), err)
			}
			for i := range lines {
				if again[i].User != lines[i].User || again[i].Email != lines[i].Email {
					t.Fatalf("%+v, written again %+v", lines[i], again[i])
				}
			}
		}
	})
}

func TestImportIsAllOrNothing(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin"} {
		email := name + "@example.com"
		if name == "erin" {
			email = "dave@example.com" // two people with one address
		}
		a.signIn("entra", "s-"+name, fmt.Sprintf(`{"preferred_username":%q,"email":%q,"groups":["eng"]}`, name, email))
	}
	ok[any](a, 201, "POST", "/groups", `{"name":"a/b"}`)
	const path = "/groups/a%2Fb/members:import"
	csv := func(body string, want int) answer {
		t.Helper()
		got := a.call("POST", path, body, "Content-Type: text/csv; charset=utf-8")
		if got.status != want {
			t.Fatalf("%q: %d, want %d: %s", body, got.status, want, got.body)
		}
		return got
	}
	members := func() (out []string) {
		for _, m := range all[userItem](a, "/groups/a%2Fb/members", "50") {
			out = append(out, m.User)
		}
		return out
	}

	p := a.refused(422, "POST", path, "user,email\nalice,\nmallory,\n,\n,carol@example.com\nALICE,x\n,dave@example.com\n,nobody@example.com\ncarol,\n", "Content-Type: text/csv")
	want := []admin.LineFault{
		{3, `there is no user "mallory"`}, {4, "names nobody"}, {6, "the same person as in line 2"},
		{7, `several people have the e-mail address "dave@example.com": name the user`},
		{8, `nobody has the e-mail address "nobody@example.com"`}, {9, "the same person as in line 5"},
	}
	if diff := cmp.Diff(want, p.Faults); diff != "" {
		t.Errorf("faults: -want +got:\n%s", diff)
	}
	if m := members(); m != nil {
		t.Fatalf("a faulty file left %v", m)
	}

	if got := csv("user,email\nalice,\n,CAROL@example.com\n", 200); string(got.body) != "{\"added\":2,\"lines\":2}\n" {
		t.Errorf("import: %s", got.body)
	}
	if got := csv("x,user\n1,bob\n2,alice\n", 200); string(got.body) != "{\"added\":1,\"lines\":2}\n" {
		t.Errorf("second import: %s", got.body)
	}
	if got := csv("user\n", 200); string(got.body) != "{\"added\":0,\"lines\":0}\n" {
		t.Errorf("empty import: %s", got.body)
	}
	if m := members(); !slices.Equal(m, []string{"alice", "bob", "carol"}) {
		t.Errorf("members: %v", m)
	}

	a.refused(409, "POST", "/groups/engineering/members:import", "user\nalice\n", "Content-Type: text/csv")
	a.refused(404, "POST", "/groups/nothing/members:import", "user\nalice\n", "Content-Type: text/csv")
	a.refused(415, "POST", path, "user\nalice\n", "Content-Type: application/json")
	a.refused(413, "POST", path, "user,x\n"+strings.Repeat("alice,"+strings.Repeat("x", 1<<16)+"\n", 600), "Content-Type: text/csv")
	imported := all[struct{ Actor, Group string }](a, "/events?kind=members_imported", "50")
	if len(imported) != 2 || imported[0].Actor != "api" || imported[0].Group != "a/b" {
		t.Errorf("audit trail: %+v", imported)
	}
}

func TestImportForTheCommandLine(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.signIn("entra", "s1", `{"preferred_username":"alice","groups":["eng"]}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"board"}`)
	lines, added, faults, err := admin.Import(t.Context(), a.dir, "board", strings.NewReader("user\nalice\n"), "command line")
	if lines != 1 || added != 1 || faults != nil || err != nil {
		t.Errorf("%d %d %v %v", lines, added, faults, err)
	}
	_, _, faults, err = admin.Import(t.Context(), a.dir, "board", strings.NewReader("user\nbob\n"), "command line")
	if len(faults) != 1 || err != nil {
		t.Errorf("a bad line: %v %v", faults, err)
	}
	if _, _, _, err = admin.Import(t.Context(), a.dir, "nothing", strings.NewReader("user\n"), "x"); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("no group: %v", err)
	}
	if _, _, _, err = admin.Import(t.Context(), a.dir, "engineering", strings.NewReader("user\n"), "x"); !errors.Is(err, groups.ErrControlled) {
		t.Errorf("an SSO group: %v", err)
	}
}
