package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/groupgate/groupgate/claims/claimstest"
	servers "github.com/groupgate/groupgate/deploy/testenv"
)

const (
	alertRules = "../../../deploy/prometheus/alerts.yaml"
	alertTests = "../../../deploy/prometheus/alerts_test.yaml"
	dashboard  = "../../../deploy/grafana/dashboard.json"
	runbook    = "../../../deploy/README.md"
)

type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	raw, err := os.ReadFile(alertRules)
	must(t, err)
	var file struct{ Groups []struct{ Rules []alert } }
	must(t, yaml.Unmarshal(raw, &file))
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 20 {
		t.Fatalf("%d rules", len(all))
	}
	return all
}

// Prometheus takes the rules, every one of them fires when it should and stays
// silent when not, and each has its words in the runbook.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(testenv(t), "bin")
	for _, args := range [][]string{{"check", "rules", alertRules}, {"test", "rules", alertTests}} {
		if out, err := servers.Promtool(t, bin, args...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	raw, err := os.ReadFile(alertTests)
	must(t, err)
	var tests struct {
		Tests []struct {
			Expr []struct {
				Samples []struct{ Labels string } `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	must(t, yaml.Unmarshal(raw, &tests))
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, c := range tests.Tests {
		quiet := slices.ContainsFunc(c.Expr, func(e struct {
			Samples []struct{ Labels string } `yaml:"exp_samples"`
		}) bool {
			return len(e.Samples) == 0
		})
		for _, e := range c.Expr {
			for _, s := range e.Samples {
				fires[s.Labels] = true
				silent[s.Labels] = silent[s.Labels] || quiet // before, in the same case
			}
		}
	}
	raw, err = os.ReadFile(runbook)
	must(t, err)
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#### (Groupgate\w+)$`).FindAllStringSubmatch(string(raw), -1) {
		explained[m[1]] = true
	}
	known := map[string]bool{}
	for _, a := range alerts(t) {
		known[a.Alert] = true
		key := fmt.Sprintf(`{alertname=%q, severity=%q}`, a.Alert, a.Labels["severity"])
		if !fires[key] || !silent[key] {
			t.Errorf("%s: there is a case where it fires: %v, and where it does not: %v", key, fires[key], silent[key])
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) || len(a.Annotations["summary"]) < 40 {
			t.Errorf("%s: severity %q, summary %q", a.Alert, a.Labels["severity"], a.Annotations["summary"])
		}
		if want := "https://github.com/groupgate/groupgate/blob/main/deploy/README.md#" + strings.ToLower(a.Alert); a.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q", a.Alert, a.Annotations["runbook_url"])
		}
		if !explained[a.Alert] {
			t.Errorf("%s is not in the runbook", a.Alert)
		}
	}
	for name := range explained {
		if !known[name] {
			t.Errorf("the runbook explains %s, which is no alert", name)
		}
	}
}

// place of a panel, in 24 columns.
type gridPos struct{ X, Y, W, H int }

func (a gridPos) overlaps(b gridPos) bool {
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     gridPos
	Datasource  struct{ UID string }
	Targets     []struct {
		Expr       string
		Datasource struct{ UID string }
	}
}

func panels(t *testing.T) []panel {
	t.Helper()
	raw, err := os.ReadFile(dashboard)
	must(t, err)
	var d struct {
		Panels     []panel
		Templating struct{ List []struct{ Name, Type string } }
	}
	must(t, json.Unmarshal(raw, &d))
	var vars []string
	for _, v := range d.Templating.List {
		vars = append(vars, v.Name+" "+v.Type)
	}
	if want := []string{"datasource datasource", "job query", "instance query"}; !slices.Equal(vars, want) || len(d.Panels) < 20 {
		t.Fatalf("variables %v, %d panels", vars, len(d.Panels))
	}
	return d.Panels
}

// written is an expression of the dashboard with what Grafana would put in.
func written(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h", "$job", ".*", "$instance", ".*").Replace(expr)
}

// The dashboard is whole: panels beside each other, variables in every
// expression, and all of them expressions.
func TestDashboard(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(testenv(t), "bin")
	all := panels(t)
	rules := strings.Builder{}
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	ids := map[int]string{}
	for i, p := range all {
		if ids[p.ID] != "" || p.Title == "" {
			t.Errorf("panels %q and %q have id %d", ids[p.ID], p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		if p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X < 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%q is at %+v", p.Title, p.GridPos)
		}
		for _, other := range all[:i] {
			if p.GridPos.overlaps(other.GridPos) {
				t.Errorf("%q and %q overlap", p.Title, other.Title)
			}
		}
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%q asks for nothing", p.Title)
		}
		for _, q := range p.Targets {
			if p.Datasource.UID != "${datasource}" || q.Datasource.UID != "${datasource}" {
				t.Errorf("%q has a data source of its own", p.Title)
			}
			if names := metricName.FindAllString(q.Expr, -1); len(names) == 0 || strings.Count(q.Expr, `job=~"$job", instance=~"$instance"`) != len(names) {
				t.Errorf("%q does not heed the variables: %s", p.Title, q.Expr)
			}
			fmt.Fprintf(&rules, "      - {record: 'panel_%d', expr: '%s'}\n", p.ID, strings.ReplaceAll(written(q.Expr), "'", "''"))
		}
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	must(t, os.WriteFile(file, []byte(rules.String()), 0o600))
	if out, err := servers.Promtool(t, bin, "check", "rules", "--lint=none", file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

var (
	metricName = regexp.MustCompile(`\b(groupgate|process|go)_[a-z0-9_]+|\bup\b`)
	selector   = regexp.MustCompile(`\b((?:groupgate|process|go)_[a-z0-9_]+|up)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouping   = regexp.MustCompile(`\b(?:by|on|without) \(([^)]*)\)`)
	wordLabel  = regexp.MustCompile(`\$labels\.(\w+)`)
)

// published is what /metrics has: label values by metric and label.
type published map[string]map[string][]string

func publishedBy(t *testing.T, g *gate) published {
	t.Helper()
	text, _ := scrape(t, g)
	out := published{"up": {}}
	for line := range strings.SplitSeq(text, "\n") {
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		if out[name] == nil {
			out[name] = map[string][]string{}
		}
		for _, m := range matcher.FindAllStringSubmatch(labels, -1) {
			out[name][m[1]] = append(out[name][m[1]], m[3])
		}
	}
	return out
}

// ofPrometheus are labels that it gives to everything.
func ofPrometheus(label string) bool { return label == "job" || label == "instance" }

// faults are what an expression asks for that nobody publishes.
func (p published) faults(expr string) (out []string) {
	labels := map[string]bool{"job": true, "instance": true}
	for _, name := range metricName.FindAllString(expr, -1) {
		if p[name] == nil {
			out = append(out, "no metric "+name)
		}
		for l := range p[name] {
			labels[l] = true
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			out = append(out, p.unmatched(s[1], m[1], m[2], m[3])...)
		}
	}
	for _, by := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(by[1], ", ") {
			if !labels[label] {
				out = append(out, "no label "+label)
			}
		}
	}
	return out
}

func (p published) unmatched(name, label, op, value string) (out []string) {
	if ofPrometheus(label) {
		return nil
	}
	have := p[name][label]
	if len(have) == 0 {
		return []string{name + " has no label " + label}
	}
	alternatives := []string{value}
	if strings.HasSuffix(op, "~") {
		alternatives = strings.Split(value, "|")
	}
	for _, a := range alternatives {
		if op[0] == '=' && !strings.HasSuffix(op, "~") {
			a = regexp.QuoteMeta(a)
		}
		if !slices.ContainsFunc(have, regexp.MustCompile("^(?:"+a+")$").MatchString) {
			out = append(out, fmt.Sprintf("%s has no %s %q", name, label, a))
		}
	}
	return out
}

// Every metric and label that the alerts, their tests and the dashboard name is
// one of a groupgate that has everything to say.
func TestAlertsAndDashboardNameWhatIsThere(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	t.Cleanup(up.Close)
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})
	p, ca := newPlace(t), newAuthority(t)
	idp := claimstest.StartSAML(t, samlPeople())
	metadata := strings.Replace(get(t, newBrowser(t), idp.URL+"/metadata").Body, "<md:EntityDescriptor ",
		fmt.Sprintf(`<md:EntityDescriptor validUntil=%q `, time.Now().AddDate(0, 1, 0).UTC().Format(time.RFC3339)), 1)
	putFile(t, p.file("metadata.xml"), []byte(metadata))
	staff := strings.Replace(samlSource("staff", p.file("metadata.xml"), ""), "metadata_url", "metadata_file", 1)
	ca.install(t, p, "portal", 24*time.Hour, "portal.example.com")
	p.write(t, up.URL, oidc("op", op.URL, opSecret)+staff,
		p.pair("portal")+"\nroutes: [{path: /, access: public}]\n"+
			"targets: [{name: wiki, webhook: {url: \"http://127.0.0.1:9/\", secret: a-secret-of-a-target-for-tests-only}}]\n")
	raw, err := os.ReadFile(p.config())
	must(t, err)
	putFile(t, p.config(), []byte(strings.Replace(string(raw), "public_url: "+p.url(), "public_url: https://portal.example.com", 1)))
	g := p.start(t)
	res, err := p.by(t, ca.roots(), "portal.example.com").Get("https://portal.example.com/")
	must(t, err)
	res.Body.Close()
	var there published
	g.eventually("all published", func() bool {
		there = publishedBy(t, g)
		return len(there["groupgate_saml_metadata_expiry_timestamp_seconds"]) > 0 && len(there.faults(`groupgate_upstream_requests_total{code="500"}`)) == 0
	})
	for expr, fault := range map[string]string{ // it sees what is not there
		`groupgate_store_sick`:                         "no metric groupgate_store_sick",
		`groupgate_logins_total{result="ok|lucky"}`:    `groupgate_logins_total has no result "ok\\|lucky"`,
		`groupgate_logins_total{result=~"ok|lucky"}`:   `groupgate_logins_total has no result "lucky"`,
		`groupgate_store_healthy{colour="green"}`:      "groupgate_store_healthy has no label colour",
		`sum by (job, colour) (groupgate_sync_total)`:  "no label colour",
		`sum by (job, result) (groupgate_sync_total)`:  "",
		`groupgate_logins_total{result=~"ok|refused"}`: "",
	} {
		if got := strings.Join(there.faults(expr), ", "); got != fault {
			t.Errorf("%s: %q, want %q", expr, got, fault)
		}
	}
	for _, a := range alerts(t) {
		for _, fault := range there.faults(a.Expr) {
			t.Errorf("%s: %s", a.Alert, fault)
		}
		kept := map[string]bool{"job": true, "instance": true}
		if m := regexp.MustCompile(`\bby \(([^)]*)\)`).FindStringSubmatch(a.Expr); m != nil {
			kept = map[string]bool{}
			for label := range strings.SplitSeq(m[1], ", ") {
				kept[label] = true
			}
		} else {
			for l := range there[metricName.FindString(a.Expr)] {
				kept[l] = true
			}
		}
		for _, m := range wordLabel.FindAllStringSubmatch(a.Annotations["summary"], -1) {
			if !kept[m[1]] {
				t.Errorf("%s: its summary names %s, and the result has %v", a.Alert, m[1], slices.Sorted(maps.Keys(kept)))
			}
		}
	}
	for _, p := range panels(t) {
		for _, q := range p.Targets {
			for _, fault := range there.faults(q.Expr) {
				t.Errorf("%q: %s", p.Title, fault)
			}
		}
	}
	raw, err = os.ReadFile(alertTests)
	must(t, err)
	series := regexp.MustCompile(`series: '((?:groupgate|process|go)_[a-z0-9_]+)\{([^}]*)\}'`).FindAllStringSubmatch(string(raw), -1)
	for _, s := range series {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if there[s[1]] == nil || !ofPrometheus(m[1]) && len(there[s[1]][m[1]]) == 0 {
				t.Errorf("the tests of the alerts have %s with %s", s[1], m[1])
			}
		}
	}
	if len(series) < 50 {
		t.Errorf("%d series in the tests of the alerts", len(series))
	}
}
