package kubetest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/groupgate/groupgate/deploy/testenv"
)

const (
	tool  = "../testenv/bin/kuberender"
	chart = "../helm/groupgate"
)

// chartOf renders the chart with a file of its folder ci, and lints it so.
func chartOf(t *testing.T, name string) *objects {
	t.Helper()
	values := filepath.Join(chart, "ci", name+"-values.yaml")
	if out, err := testenv.KubeRender(t, tool, "lint", chart, values); err != nil {
		t.Fatal(err)
	} else if strings.Contains(out, "[WARNING]") || strings.Contains(out, "[ERROR]") {
		t.Error(out)
	}
	return rendered(t, values)
}

func rendered(t *testing.T, values string) *objects {
	t.Helper()
	text, err := testenv.KubeRender(t, tool, "template", chart, "portal", "default", values)
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// kinds says what a rendering has of what is optional.
func (o *objects) kinds() string {
	var all []string
	for kind, n := range map[string]int{
		"claim": len(o.claims), "ingress": len(o.ingresses), "policy": len(o.policies), "budget": len(o.budgets),
		"scaler": len(o.scalers), "route": len(o.routes), "monitor": len(o.monitors),
	} {
		if n > 0 {
			all = append(all, kind)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestChart(t *testing.T) {
	t.Parallel()
	always := []string{"session-key", "admin-token"}
	for name, want := range map[string]struct {
		secrets  map[string][]string
		kinds    string
		strategy appsv1.DeploymentStrategyType
		notes    string
	}{
		"standalone":   {map[string][]string{"groupgate": append(always, "entra")}, "claim ingress policy", "Recreate", "admin-token, entra, session-key."},
		"postgres":     {map[string][]string{"groupgate": append(always, "session-key-2", "okta"), "database": {"url"}}, "budget monitor policy route scaler", "RollingUpdate", "session-key, session-key-2."},
		"forward-auth": {map[string][]string{"groupgate": append(always, "kc")}, "budget ingress policy", "RollingUpdate", "portal-groupgate.default.svc:80/oauth2/auth"},
		"ephemeral":    {map[string][]string{"groupgate": append(always, "ldap")}, "", "Recreate", "WARNING: the store is gone with the pod"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := chartOf(t, name)
			if len(o.deployments) != 1 || o.kinds() != want.kinds {
				t.Fatalf("has %q, wanted %q", o.kinds(), want.kinds)
			}
			if got := o.deployments[0].Spec.Strategy.Type; got != want.strategy {
				t.Errorf("strategy %s", got)
			}
			if !strings.Contains(o.text, want.notes) {
				t.Errorf("the notes do not say %q", want.notes)
			}
			o.wire(t, expected{secrets: want.secrets})
		})
	}
}

// What is only asked of one rendering: hosts, paths, and images.
func TestChartSaysWhereTo(t *testing.T) {
	t.Parallel()
	o := chartOf(t, "postgres")
	if got := o.routes[0].Spec.Hostnames; !slices.Equal(got, []string{"portal.example.com", "eng.example.com"}) {
		t.Errorf("hosts %q: those of public_url and of routes are wanted", got)
	}
	if got := gate(t, o.deployments[0]).Image; !strings.HasPrefix(got, "ghcr.io/groupgate/groupgate@sha256:") {
		t.Errorf("image %s", got)
	}
	if got := o.policies[0].Spec.Ingress; len(got) != 2 || len(got[0].From) != 1 || len(got[1].From) != 1 {
		t.Errorf("policy %+v", got)
	}
	o = chartOf(t, "forward-auth")
	if got := o.ingresses[0].Spec.Rules[0].HTTP.Paths; len(got) != 1 || got[0].Path != "/oauth2" {
		t.Errorf("paths %+v: PREFIX alone is wanted", got)
	}
	o = chartOf(t, "standalone")
	if got := o.ingresses[0].Spec.Rules[0].HTTP.Paths; len(got) != 1 || got[0].Path != "/" {
		t.Errorf("paths %+v", got)
	}
	if got := gate(t, o.deployments[0]).Image; got != "ghcr.io/groupgate/groupgate:v0.1.0" {
		t.Errorf("image %s", got)
	}
	if got := o.claims[0]; got.Annotations["helm.sh/resource-policy"] != "keep" || !slices.Equal(got.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}) {
		t.Errorf("claim %+v", got)
	}
}

// changed is a file of values that differs from that of "standalone".
func changed(t *testing.T, change func(map[string]any)) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(chart, "ci", "standalone-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		t.Fatal(err)
	}
	change(values)
	if raw, err = yaml.Marshal(values); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// set is a change of one value, at a path with dots.
func set(path string, value any) func(map[string]any) {
	return func(values map[string]any) {
		keys := strings.Split(path, ".")
		for _, k := range keys[:len(keys)-1] {
			below, ok := values[k].(map[string]any)
			if !ok {
				below = map[string]any{}
				values[k] = below
			}
			values = below
		}
		last := keys[len(keys)-1]
		if value == nil {
			delete(values, last)
			return
		}
		values[last] = value
	}
}

// Each row is refused with these words; beside it stands one that is not.
func TestChartRefuses(t *testing.T) {
	t.Parallel()
	type row struct {
		path     string
		bad      any
		words    string
		fine     any
		together func(map[string]any) // of both
	}
	for _, r := range []row{
		{"replica", 1, "replica", nil, nil},
		{"store.sqlite.sise", "1Gi", "sise", nil, nil},
		{"mode", "sidecar", "mode", "standalone", nil},
		{"replicas", 2, "store.type sqlite is for one replica", 1, nil},
		{"replicas", "two", "replicas", 2, set("store.type", "none")},
		{"autoscaling.enabled", true, "store.type sqlite is for one replica", false, nil},
		{"autoscaling.maxReplicas", 1, "less than autoscaling.minReplicas", 2, func(v map[string]any) { set("autoscaling.enabled", true)(v); set("store.type", "none")(v) }},
		{"upstream", nil, "upstream is needed", "http://app:80", nil},
		{"mode", "forward-auth", "upstream has no meaning", "standalone", nil},
		{"config.listen", ":80", "config.listen is written by the chart", nil, nil},
		{"config.store", map[string]any{"sqlite": "x"}, "config.store is written by the chart", nil, nil},
		{"config.admin.token", "secret", "config.admin.token is written by the chart", nil, nil},
		{"config.public_url", "http://portal.example.com", "public_url", "https://other.example.com", nil},
		{"config.sources", nil, "sources", []any{map[string]any{"name": "a"}}, nil},
		{"secret.name", nil, "name", "other", nil},
		{"secret.value", "s3cret", "value", nil, nil},
		{"terminationGracePeriodSeconds", 10, "terminationGracePeriodSeconds", 30, nil},
		{"image.digest", "sha256:abc", "digest", "sha256:" + strings.Repeat("a", 64), nil},
		{"httpRoute.enabled", true, "httpRoute.parentRefs is needed", false, nil},
		{"store.sqlite.ephemeral", true, "exclude each other", false, set("store.sqlite.existingClaim", "mine")},
		{"service.port", "http", "port", 8080, nil},
	} {
		name := fmt.Sprintf("%s=%v", r.path, r.bad)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			render := func(value any) error {
				_, err := testenv.KubeRender(t, tool, "template", chart, "portal", "default", changed(t, func(v map[string]any) {
					if r.together != nil {
						r.together(v)
					}
					set(r.path, value)(v)
				}))
				return err
			}
			if err := render(r.bad); err == nil || !strings.Contains(err.Error(), r.words) {
				t.Errorf("%v, wanted %q", err, r.words)
			}
			if err := render(r.fine); err != nil {
				t.Errorf("with %v: %v", r.fine, err)
			}
		})
	}
}

// Pods are made anew when the configuration changes, and only then.
func TestChartRollsOnChange(t *testing.T) {
	t.Parallel()
	sum := func(change func(map[string]any)) string {
		o := rendered(t, changed(t, change))
		return o.deployments[0].Spec.Template.Annotations["checksum/config"]
	}
	before := sum(func(map[string]any) {})
	if len(before) != 64 || before != sum(set("service.port", 8080)) {
		t.Errorf("checksum %q", before)
	}
	if before == sum(set("config.log", map[string]any{"level": "debug"})) {
		t.Error("another configuration has the same checksum")
	}
}

// Every value of values.yaml is in the schema, and none beside.
func TestSchemaKnowsEveryValue(t *testing.T) {
	t.Parallel()
	type schema struct {
		Properties           map[string]schema
		AdditionalProperties any
	}
	var s schema
	values := map[string]any{}
	for name, into := range map[string]any{"values.schema.json": &s, "values.yaml": &values} {
		raw, err := os.ReadFile(filepath.Join(chart, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	var compare func(path string, s schema, values map[string]any)
	compare = func(path string, s schema, values map[string]any) {
		if strict, is := s.AdditionalProperties.(bool); !is || strict {
			t.Errorf("%s takes any key", path)
		}
		known := slices.DeleteFunc(slices.Sorted(maps.Keys(s.Properties)), func(k string) bool { return path == "values" && k == "global" }) // Helm's own
		if has := slices.Sorted(maps.Keys(values)); !slices.Equal(known, has) {
			t.Errorf("%s: the schema knows\n%q, values.yaml has\n%q", path, known, has)
		}
		for k, v := range values {
			below, isMap := v.(map[string]any)
			// groupgate says itself what is wrong in its configuration, and
			// Kubernetes which resources it has.
			if isMap && k != "config" && path != "values.resources" && len(below) > 0 {
				compare(path+"."+k, s.Properties[k], below)
			}
		}
	}
	compare("values", s, values)
}
