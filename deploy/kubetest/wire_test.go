package kubetest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/groupgate/groupgate/config"
)

// Where the pods mount what the configuration names.
const (
	configFile = "/etc/groupgate/groupgate.yaml"
	secretDir  = "/run/secrets/groupgate/"
	dataDir    = "/data/"
)

// expected is what stands outside of a rendering.
type expected struct {
	secrets map[string][]string // Secrets of the namespace, and their keys
	foreign []string            // Services that are there already
}

// wire holds a rendering together: everything that is named is there.
func (o *objects) wire(t *testing.T, e expected) {
	t.Helper()
	for _, d := range o.deployments {
		pod := &d.Spec.Template
		for _, fault := range unrestricted(&pod.Spec) {
			t.Errorf("%s: %s", d.Name, fault)
		}
		if !selects(d.Spec.Selector, pod.Labels) {
			t.Errorf("%s does not select its own pods", d.Name)
		}
		if name := pod.Spec.ServiceAccountName; name != "" && !slices.ContainsFunc(o.accounts, func(a *corev1.ServiceAccount) bool { return a.Name == name }) {
			t.Errorf("%s: no service account %s", d.Name, name)
		}
		// 3 s and 25 s of the program's, see cmd/internal/app/stop.go.
		if s := pod.Spec.TerminationGracePeriodSeconds; s == nil || *s < 30 {
			t.Errorf("%s: a grace of %v s", d.Name, s)
		}
		o.wireGate(t, d, gate(t, d), e)
	}
	o.wireServices(t, e)
	o.wireSelectors(t)
	if strings.Contains(o.text, "kind: Secret\n") {
		t.Error("there is a Secret")
	}
}

// gate is the container that runs groupgate.
func gate(t *testing.T, d *appsv1.Deployment) *corev1.Container {
	t.Helper()
	for _, list := range [][]corev1.Container{d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers} {
		for i := range list {
			if list[i].Name == "groupgate" {
				return &list[i]
			}
		}
	}
	t.Fatalf("%s has no groupgate", d.Name)
	return nil
}

// wireGate follows the container to its configuration, and from there to
// secrets, ports and folders.
func (o *objects) wireGate(t *testing.T, d *appsv1.Deployment, c *corev1.Container, e expected) {
	t.Helper()
	if !slices.Equal(c.Args, []string{"serve", "--config", configFile}) {
		t.Errorf("%s: arguments %q", d.Name, c.Args)
	}
	at := mounts(t, d, c)
	source := at["/etc/groupgate"].ConfigMap
	if source == nil {
		t.Fatalf("%s: no ConfigMap where the configuration is", d.Name)
	}
	text := ""
	for _, m := range o.configMaps {
		if m.Name == source.Name {
			text = m.Data["groupgate.yaml"]
		}
	}
	given := secretFiles(t, at[strings.TrimSuffix(secretDir, "/")], e.secrets)
	cfg := load(t, text, given)
	public, admin := port(t, cfg.Listen), port(t, cfg.Admin.Listen)
	for _, p := range []struct {
		name, path string
		probe      *corev1.Probe
	}{{"startup", "/healthz", c.StartupProbe}, {"liveness", "/healthz", c.LivenessProbe}, {"readiness", "/readyz", c.ReadinessProbe}} {
		if p.probe == nil || p.probe.HTTPGet == nil || p.probe.HTTPGet.Path != p.path || portOf(c, p.probe.HTTPGet.Port) != admin {
			t.Errorf("%s: %s probe %+v, wanted %s at port %d", d.Name, p.name, p.probe, p.path, admin)
		}
	}
	if len(c.Ports) != 2 || c.Ports[0].ContainerPort != public || c.Ports[1].ContainerPort != admin {
		t.Errorf("%s: ports %+v, wanted %d and %d", d.Name, c.Ports, public, admin)
	}
	data := at[strings.TrimSuffix(dataDir, "/")]
	if cfg.Store.SQLite != "" && !strings.HasPrefix(cfg.Store.SQLite, dataDir) && filepath.IsAbs(cfg.Store.SQLite) {
		t.Errorf("%s: the store %s is on no volume", d.Name, cfg.Store.SQLite)
	}
	if claim := data.PersistentVolumeClaim; claim == nil && data.EmptyDir == nil {
		t.Errorf("%s: nothing at %s", d.Name, dataDir)
	} else if claim != nil && !slices.ContainsFunc(o.claims, func(c *corev1.PersistentVolumeClaim) bool { return c.Name == claim.ClaimName }) {
		t.Errorf("%s: no claim %s", d.Name, claim.ClaimName)
	}
	if c.RestartPolicy != nil { // beside the application: it is reached by loopback alone
		u, err := url.Parse(cfg.Upstream)
		if err != nil || u.Hostname() != "127.0.0.1" {
			t.Errorf("%s: the upstream is %s", d.Name, cfg.Upstream)
		}
	}
}

// mounts are the volumes that a container sees, by where.
func mounts(t *testing.T, d *appsv1.Deployment, c *corev1.Container) map[string]corev1.VolumeSource {
	t.Helper()
	at := map[string]corev1.VolumeSource{}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			t.Errorf("%s: no volume %s", d.Name, m.Name)
			continue
		}
		if m.ReadOnly == (m.MountPath+"/" == dataDir) {
			t.Errorf("%s: %s is read-only: %t", d.Name, m.MountPath, m.ReadOnly)
		}
		at[m.MountPath] = d.Spec.Template.Spec.Volumes[i].VolumeSource
	}
	return at
}

// secretFiles are the files that a volume of secrets holds. A Secret or a key
// that nobody made would keep the pod from starting.
func secretFiles(t *testing.T, v corev1.VolumeSource, there map[string][]string) (files []string) {
	t.Helper()
	add := func(secret string, items []corev1.KeyToPath) {
		keys, known := there[secret]
		if !known {
			t.Errorf("no Secret %s", secret)
		}
		if items == nil {
			files = append(files, keys...)
		}
		for _, i := range items {
			if !slices.Contains(keys, i.Key) {
				t.Errorf("the Secret %s has no key %s", secret, i.Key)
			}
			files = append(files, i.Path)
		}
	}
	switch {
	case v.Secret != nil:
		add(v.Secret.SecretName, v.Secret.Items)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret == nil {
				t.Errorf("a source of secrets is none: %+v", s)
				continue
			}
			add(s.Secret.Name, s.Secret.Items)
		}
	default:
		t.Error("no volume of secrets")
	}
	return files
}

var reference = regexp.MustCompile(`\$\{file:([^}]*)\}`)

// load reads a configuration as groupgate does, with secrets where the pod has
// them.
func load(t *testing.T, text string, secrets []string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for _, s := range secrets {
		value := "a-secret-for-tests-only-0123456789abcdef-" + s
		if s == "database-url" {
			value = "postgres://groupgate:not-a-real-password@db.example.com/groupgate"
		}
		if err := os.WriteFile(filepath.Join(dir, s), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[1], secretDir) {
			t.Errorf("%s is in no Secret", m[1])
		}
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if regexp.MustCompile(`(secret|password|token|postgres|database)$`).MatchString(key) && !reference.MatchString(value) {
			t.Errorf("a secret in the ConfigMap: %s", line)
		}
	}
	file := filepath.Join(dir, "groupgate.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, secretDir, dir+"/")), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return cfg
}

// port is the one of a listener that all of the pod's addresses have.
func port(t *testing.T, listen string) int32 {
	t.Helper()
	host, text, err := net.SplitHostPort(listen)
	if err != nil || host != "" {
		t.Fatalf("nobody outside of the pod reaches %q", listen)
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

// portOf is the number of a container's port; 0 when it has none like this.
func portOf(c *corev1.Container, p intstr.IntOrString) int32 {
	for _, has := range c.Ports {
		if p.Type == intstr.String && has.Name == p.StrVal || p.Type == intstr.Int && has.ContainerPort == p.IntVal {
			return has.ContainerPort
		}
	}
	return 0
}

// wireServices leads every Service to a port of groupgate's, and whoever names
// a Service to one that is there.
func (o *objects) wireServices(t *testing.T, e expected) {
	t.Helper()
	there := map[string]bool{}
	for _, s := range o.services {
		for _, d := range o.deployments {
			if !selects(&metav1.LabelSelector{MatchLabels: s.Spec.Selector}, d.Spec.Template.Labels) {
				t.Errorf("the Service %s selects nobody", s.Name)
			}
			wanted := gate(t, d).Ports[0].ContainerPort
			if s.Spec.ClusterIP == corev1.ClusterIPNone { // the metrics'
				wanted = gate(t, d).Ports[1].ContainerPort
			}
			for _, p := range s.Spec.Ports {
				if got := portOf(gate(t, d), p.TargetPort); got != wanted {
					t.Errorf("the Service %s leads to port %d of the pod, wanted %d", s.Name, got, wanted)
				}
				there[s.Name+":"+p.Name], there[fmt.Sprintf("%s:%d", s.Name, p.Port)] = true, true
			}
		}
	}
	for _, i := range o.ingresses {
		for _, r := range i.Spec.Rules {
			for _, p := range r.HTTP.Paths {
				b := p.Backend.Service
				if !there[b.Name+":"+b.Port.Name] && !slices.Contains(e.foreign, b.Name) {
					t.Errorf("the Ingress %s leads to %s:%s, which is not there", i.Name, b.Name, b.Port.Name)
				}
				if *p.PathType != networkingv1.PathTypePrefix || r.Host == "" {
					t.Errorf("the Ingress %s: %+v", i.Name, p)
				}
			}
		}
	}
	for _, r := range o.routes {
		for _, rule := range r.Spec.Rules {
			for _, b := range rule.BackendRefs {
				if !there[fmt.Sprintf("%s:%d", b.Name, b.Port)] {
					t.Errorf("the HTTPRoute %s leads to %s:%d, which is not there", r.Name, b.Name, b.Port)
				}
			}
		}
		if len(r.Spec.ParentRefs) == 0 || len(r.Spec.Hostnames) == 0 || len(r.Spec.Rules) == 0 {
			t.Errorf("the HTTPRoute %s is not whole", r.Name)
		}
	}
	for _, m := range o.monitors {
		if !slices.ContainsFunc(o.services, func(s *corev1.Service) bool {
			return selects(&m.Spec.Selector, s.Labels) && s.Spec.ClusterIP == corev1.ClusterIPNone && there[s.Name+":"+m.Spec.Endpoints[0].Port]
		}) {
			t.Errorf("the ServiceMonitor %s finds no Service", m.Name)
		}
	}
}

// wireSelectors holds to their pods what is about pods.
func (o *objects) wireSelectors(t *testing.T) {
	t.Helper()
	for _, d := range o.deployments {
		labels := d.Spec.Template.Labels
		for _, p := range o.policies {
			if !selects(&p.Spec.PodSelector, labels) || !slices.Equal(p.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress"}) {
				t.Errorf("the NetworkPolicy %s is about nobody", p.Name)
			}
			for _, in := range p.Spec.Ingress {
				if len(in.Ports) != 1 || portOf(gate(t, d), *in.Ports[0].Port) == 0 {
					t.Errorf("the NetworkPolicy %s opens %+v", p.Name, in.Ports)
				}
				// The console is open to nobody who is not named.
				if portOf(gate(t, d), *in.Ports[0].Port) == gate(t, d).Ports[1].ContainerPort && len(in.From) == 0 {
					t.Errorf("the NetworkPolicy %s opens the console", p.Name)
				}
			}
		}
		for _, b := range o.budgets {
			if !selects(b.Spec.Selector, labels) {
				t.Errorf("the PodDisruptionBudget %s is about nobody", b.Name)
			}
		}
		for _, h := range o.scalers {
			if r := h.Spec.ScaleTargetRef; r.Kind != "Deployment" || r.Name != d.Name || d.Spec.Replicas != nil {
				t.Errorf("the HorizontalPodAutoscaler %s scales %+v, which says replicas: %v", h.Name, r, d.Spec.Replicas)
			}
		}
		for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
			if !selects(c.LabelSelector, labels) {
				t.Errorf("%s spreads nobody", d.Name)
			}
		}
	}
}

func selects(s *metav1.LabelSelector, labels map[string]string) bool {
	if s == nil || len(s.MatchLabels) == 0 || len(s.MatchExpressions) > 0 {
		return false
	}
	for k, v := range s.MatchLabels {
		if labels[k] != v {
			return false
		}
	}
	return true
}
