package admin

import (
	"cmp"
	"encoding/csv"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/groups"
)

// exportPage is how many members are read at a time.
const exportPage = 1000

// exportMembers answers a group's members as a CSV file, by user id. What was
// read is sent before more is read; a store that fails half way breaks the
// connection off, so that nobody takes a part for the whole.
func (s *Server) exportMembers(x *exchange) error {
	ctx, name := x.r.Context(), x.args[0]
	if _, err := s.group(x, name); err != nil {
		return err
	}
	store := s.dir.Store()
	found, err := store.Members(ctx, name, 0, exportPage)
	if err != nil {
		return err
	}
	h := x.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", cmp.Or(mime.FormatMediaType("attachment", map[string]string{"filename": name + ".csv"}), "attachment"))
	x.WriteHeader(http.StatusOK)
	if x.r.Method == http.MethodHead {
		return nil
	}
	w := csv.NewWriter(x)
	_ = w.Write([]string{"user", "email", "name", "origin", "since"}) // w keeps the error
	for {
		for i := range found {
			_ = w.Write(memberRow(&found[i]))
		}
		w.Flush()
		if w.Error() != nil {
			return nil // the client is gone
		}
		if len(found) < exportPage {
			return nil
		}
		_ = http.NewResponseController(x).Flush() // if it cannot, the whole comes at once
		found, err = store.Members(ctx, name, found[len(found)-1].User.ID, exportPage)
		if err != nil {
			s.log.Error("export of members broken off", zap.String("request_id", x.id), zap.Error(err))
			panic(http.ErrAbortHandler)
		}
	}
}

func memberRow(m *groups.Member) []string {
	u, since := &m.User, ""
	if !m.Membership.Since.IsZero() {
		since = m.Membership.Since.UTC().Format(time.RFC3339)
	}
	return []string{asText(u.Name), asText(u.Email), asText(u.Display), string(m.Membership.Origin()), since}
}

// asText keeps a spreadsheet from taking a text for a formula: it puts the mark
// in front that says so.
func asText(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r\n", s[0]) >= 0 {
		return "'" + s
	}
	return s
}

// asWritten takes back what asText did.
func asWritten(s string) string {
	if rest, marked := strings.CutPrefix(s, "'"); marked && asText(rest) == s {
		return rest
	}
	return s
}
