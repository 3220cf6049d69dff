package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/saml"
	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

// ErrSilent is a failure that has been reported already.
var ErrSilent = errors.New("")

// ErrGuard is a plan that the guard would stop.
var ErrGuard = errors.New("the guard would stop these removals")

// Check validates a configuration. online also contacts what it names, one
// line each. The error is ErrSilent when the lines say it all.
func Check(ctx context.Context, path string, online bool, out io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: no faults\n", path)
	for _, w := range cfg.Warnings() {
		fmt.Fprintf(out, "%s: warning: %s\n", path, w)
	}
	if !online {
		return nil
	}
	failed := false
	report := func(what, detail string, err error) {
		if err != nil {
			failed = true
			fmt.Fprintf(out, "%-24s failed: %v\n", what, err)
			return
		}
		fmt.Fprintf(out, "%-24s ok: %s\n", what, detail)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, src := range cfg.Sources {
		detail, err := probe(ctx, cfg, src)
		report("source "+src.Name, detail, err)
	}
	for _, t := range cfg.Targets {
		detail, err := probeTarget(ctx, t)
		report("target "+t.Name, detail, err)
	}
	detail, err := checkStore(ctx, cfg)
	report("store", detail, err)
	seen := map[string]bool{}
	upstreams := []string{cfg.Upstream}
	for _, r := range cfg.Routes {
		upstreams = append(upstreams, r.Upstream)
	}
	for _, u := range upstreams {
		if u == "" || seen[u] {
			continue
		}
		seen[u] = true
		report("upstream "+u, "connected", dialUpstream(ctx, u))
	}
	if failed {
		return ErrSilent
	}
	return nil
}

// probe reaches a source as a running one would.
func probe(ctx context.Context, cfg *config.Config, src claims.Config) (string, error) {
	switch {
	case src.SAML != nil:
		return probeSAML(ctx, cfg, src)
	case src.LDAP != nil:
		l, err := claims.NewLDAP(claims.LDAPOptions{Name: src.Name, Config: *src.LDAP})
		if err != nil {
			return "", err
		}
		defer l.Close()
		return l.Probe(ctx)
	case src.Local != nil:
		return probeLocal(ctx, cfg, src.Name)
	default:
		return claims.NewOIDC(claims.OIDCOptions{Name: src.Name, Config: *src.OIDC}).Probe(ctx)
	}
}

func probeSAML(ctx context.Context, cfg *config.Config, src claims.Config) (string, error) {
	own, err := anyPair(src.SAML, cfg.PublicURL)
	if err != nil {
		return "", err
	}
	s, err := saml.New(saml.Options{
		Name: src.Name, Config: *src.SAML, Origin: cfg.PublicURL, Prefix: cfg.Prefix, Key: own.key, Certificate: own.certificate,
	})
	if err != nil {
		return "", err
	}
	return s.Probe(ctx)
}

// probeLocal says how many could sign in at a source of local users.
func probeLocal(ctx context.Context, cfg *config.Config, source string) (string, error) {
	if errors.Is(placeOf(cfg.Store).missing(), os.ErrNotExist) {
		return "no users yet, the store is new", nil
	}
	dir, done, err := offline(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer done()
	return countLocal(ctx, dir, source)
}

func countLocal(ctx context.Context, dir *groups.Directory, source string) (string, error) {
	all, disabled := 0, 0
	err := dir.EachLocal(ctx, source, func(a *groups.LocalAccount) error {
		all++
		if a.Disabled {
			disabled++
		}
		return nil
	})
	return fmt.Sprintf("%d users, %d disabled", all, disabled), err
}

func checkStore(ctx context.Context, cfg *config.Config) (string, error) {
	if cfg.Store.None != nil {
		return "none, sessions are in the browsers", nil
	}
	at := placeOf(cfg.Store)
	if errors.Is(at.missing(), os.ErrNotExist) {
		dir := filepath.Dir(cfg.Store.SQLite)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return "", fmt.Errorf("%s: there is no such folder to make the file in", dir)
		}
		return cfg.Store.SQLite + " will be made at the first start", nil
	}
	store, err := at.open(ctx, nil)
	if err != nil {
		return "", err
	}
	defer store.Close()
	all, holders, err := store.CountUsers(ctx)
	return fmt.Sprintf("%s, %d users, %d with groups", at, all, holders), err
}

func dialUpstream(ctx context.Context, raw string) error {
	network, address := "tcp", ""
	if path, unix := strings.CutPrefix(raw, "unix:"); unix {
		network, address = "unix", path
	} else {
		u, err := url.Parse(raw)
		if err != nil {
			return err
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443", "h2c": "80"}[u.Scheme]
		}
		address = net.JoinHostPort(u.Hostname(), port)
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// offline opens the directory of a configuration to look at. A store that
// does not exist yet is an empty one, and stays unmade.
func offline(ctx context.Context, cfg *config.Config) (dir *groups.Directory, close func(), err error) {
	if cfg.Store.None != nil {
		dir = groups.NewDirectory(groups.Options{})
		return dir, func() {}, dir.Preview(ctx, directorySettings(cfg))
	}
	store, close, err := placeOf(cfg.Store).preview(ctx)
	if err != nil {
		return nil, nil, err
	}
	dir = groups.NewDirectory(groups.Options{Store: store})
	if err := dir.Preview(ctx, directorySettings(cfg)); err != nil {
		close()
		return nil, nil, err
	}
	return dir, close, nil
}

// Plan says what the rules in the file would change for every known user. The
// error is ErrGuard when the guard would stop it.
func Plan(ctx context.Context, path string, asJSON bool, out io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	dir, done, err := offline(ctx, cfg)
	if err != nil {
		return err
	}
	defer done()
	if !dir.Stored() {
		return fmt.Errorf("plan: nobody is known whom rules could change: %w", groups.ErrNoDirectory)
	}
	plan, err := dir.PlanSettings(ctx, directorySettings(cfg))
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(out, plan)
	} else {
		err = writePlan(out, plan)
	}
	if err == nil && plan.Guard.Stops {
		return ErrGuard
	}
	return err
}

func writePlan(out io.Writer, p *groups.Plan) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	if len(p.Groups) > 0 {
		fmt.Fprintln(w, "GROUP\tADDED\tREMOVED\t")
		for _, g := range p.Groups {
			note := ""
			if g.Created {
				note = "new"
			}
			fmt.Fprintf(w, "%s\t+%d\t-%d\t%s\n", g.Group, g.Added, g.Removed, note)
		}
		fmt.Fprintln(w)
	}
	if len(p.Users) > 0 {
		fmt.Fprintln(w, "USER\tADDED\tREMOVED\tSKIPPED")
		for _, u := range p.Users {
			var skipped []string
			for _, s := range u.Skipped {
				skipped = append(skipped, s.Group+" ("+s.Reason+")")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", u.User, list(u.Added), list(u.Removed), list(skipped))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d known users: %d memberships would be added, %d removed.\n", p.Known, p.Added, p.Removed)
	if p.Guard.Stops {
		fmt.Fprintf(out, "The guard would stop the removals: %d users would lose a group within the window, %d of %d are allowed.\n",
			p.Guard.Removed, p.Guard.Limit, p.Guard.Holders)
	}
	return err
}

func list(items []string) string {
	if len(items) == 0 {
		return "-"
	}
	return strings.Join(items, ", ")
}

// Import adds the people of a CSV file to a manual group, all or nothing.
func Import(ctx context.Context, path, group, file string, out io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if cfg.Store.None != nil {
		return fmt.Errorf("import: nobody keeps members: %w", groups.ErrNoDirectory)
	}
	if err := placeOf(cfg.Store).missing(); err != nil {
		return fmt.Errorf("store: %w (it is made by the first serve)", err)
	}
	dir, done, err := offline(ctx, cfg)
	if err != nil {
		return err
	}
	defer done()
	lines, added, faults, err := admin.Import(ctx, dir, group, f, "command line")
	for _, fault := range faults {
		fmt.Fprintf(out, "%s:%d: %s\n", file, fault.Line, fault.Message)
	}
	if len(faults) > 0 {
		fmt.Fprintf(out, "nothing was imported: %d of the lines are at fault\n", len(faults))
		return ErrSilent
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d people read, %d are new members\n", group, lines, added)
	return nil
}

func writeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
