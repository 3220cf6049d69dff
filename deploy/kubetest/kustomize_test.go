package kubetest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/groupgate/groupgate/deploy/testenv"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

const folders = "../kustomize"

// build is what Kustomize makes of a folder.
func build(t *testing.T, folder string) *objects {
	t.Helper()
	text, err := testenv.KubeRender(t, tool, "build", filepath.Join(folders, folder))
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// secrets are those that the comment of a kustomization.yaml has people make.
func secrets(t *testing.T, folder string) map[string][]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(folders, folder, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, m := range regexp.MustCompile(`--from-(?:literal|file)=([-a-z0-9]+)`).FindAllStringSubmatch(string(raw), -1) {
		keys = append(keys, m[1])
	}
	if !strings.Contains(string(raw), "kubectl create secret generic groupgate ") || len(keys) < 3 {
		t.Fatalf("%s does not say how the Secret is made", folder)
	}
	return map[string][]string{"groupgate": keys}
}

func TestSidecar(t *testing.T) {
	t.Parallel()
	o := build(t, "example")
	o.wire(t, expected{secrets: secrets(t, "example")})
	pod := o.deployments[0].Spec.Template.Spec
	if len(pod.InitContainers) != 1 || pod.InitContainers[0].RestartPolicy == nil || *pod.InitContainers[0].RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Fatalf("no native sidecar: %+v", pod.InitContainers)
	}
	app := pod.Containers[0]
	if len(pod.Containers) != 1 || app.Name != "app" || len(app.VolumeMounts) != 0 {
		t.Errorf("the application's container: %+v", app)
	}
	if l := app.Lifecycle; l == nil || l.PreStop == nil || l.PreStop.Sleep == nil || l.PreStop.Sleep.Seconds < 3 {
		t.Errorf("the application ends before endpoints forget it: %+v", l)
	}
	// Its sleep, and what groupgate takes after it.
	if s := *pod.TerminationGracePeriodSeconds; s < app.Lifecycle.PreStop.Sleep.Seconds+28 {
		t.Errorf("a grace of %d s", s)
	}
	// Nobody is let past groupgate.
	if len(o.policies) != 1 || len(o.policies[0].Spec.Ingress) != 1 || portOf(&pod.InitContainers[0], *o.policies[0].Spec.Ingress[0].Ports[0].Port) != 4180 {
		t.Errorf("policies %+v", o.policies)
	}
	for _, s := range o.services {
		if s.Spec.Ports[0].TargetPort.IntValue() != 4180 {
			t.Errorf("the Service %s leads past groupgate: %+v", s.Name, s.Spec.Ports)
		}
	}
	if name := o.configMaps[0].Name; !regexp.MustCompile(`^groupgate-[a-z0-9]{10}$`).MatchString(name) {
		t.Errorf("the ConfigMap %s does not change its name with its content", name)
	}
}

// The component leaves alone what does not ask for it.
func TestSidecarIsAskedFor(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "kustomize")
	if err := os.CopyFS(dir, os.DirFS(folders)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "example", "app.yaml")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), ", groupgate: sidecar", "")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := testenv.KubeRender(t, tool, "build", filepath.Join(dir, "example"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode(out)
	if err != nil {
		t.Fatal(err)
	}
	if pod := o.deployments[0].Spec.Template.Spec; len(pod.InitContainers) != 0 || len(pod.Volumes) != 0 {
		t.Errorf("%+v", pod)
	}
	if got := o.services[0].Spec.Ports[0].TargetPort.IntValue(); got != 8080 {
		t.Errorf("the Service leads to port %d", got)
	}
}

func TestForwardAuth(t *testing.T) {
	t.Parallel()
	o := build(t, "forward-auth")
	o.wire(t, expected{secrets: secrets(t, "forward-auth"), foreign: []string{"app"}})
	if len(o.middlewares) != 1 {
		t.Fatal("no Middleware")
	}
	auth := o.middlewares[0].Spec.ForwardAuth
	if auth.Address != "http://groupgate.default.svc.cluster.local/_auth/auth/redirect" || auth.TrustForwardHeader {
		t.Errorf("%+v", auth)
	}
	// Every header that groupgate owns there, or a client's own would pass.
	cfg := load(t, o.configMaps[0].Data["groupgate.yaml"], secrets(t, "forward-auth")["groupgate"])
	lines, _ := proxy.HeaderLines(cfg.Headers, &groups.View{
		User: groups.User{Name: "alice", Email: "alice@example.com", Display: "Alice"}, Groups: []string{"engineering"},
	})
	var want []string
	for _, l := range lines {
		want = append(want, l[0])
	}
	if slices.Sort(auth.AuthResponseHeaders); len(want) != 4 || !slices.Equal(auth.AuthResponseHeaders, want) {
		t.Errorf("headers %q, wanted %q", auth.AuthResponseHeaders, want)
	}
	if len(cfg.TrustedProxies) == 0 {
		t.Error("nobody is trusted to say which path is asked about")
	}
}
