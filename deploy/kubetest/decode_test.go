package kubetest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// objects are what a rendering made, by kind.
type objects struct {
	deployments []*appsv1.Deployment
	services    []*corev1.Service
	configMaps  []*corev1.ConfigMap
	claims      []*corev1.PersistentVolumeClaim
	accounts    []*corev1.ServiceAccount
	ingresses   []*networkingv1.Ingress
	policies    []*networkingv1.NetworkPolicy
	budgets     []*policyv1.PodDisruptionBudget
	scalers     []*autoscalingv2.HorizontalPodAutoscaler
	routes      []*httpRoute
	monitors    []*serviceMonitor
	middlewares []*middleware
	names       map[string]bool // KIND/NAME
	text        string
}

// The types below are the parts of three definitions that come with no module
// of ours; what is not in them is refused.

// httpRoute is of the Gateway API, gateway.networking.k8s.io/v1.
type httpRoute struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ParentRefs []struct {
			Name, Namespace, SectionName string
		} `json:"parentRefs"`
		Hostnames []string `json:"hostnames"`
		Rules     []struct {
			Matches []struct {
				Path struct{ Type, Value string } `json:"path"`
			} `json:"matches"`
			BackendRefs []struct {
				Name string
				Port int32
			} `json:"backendRefs"`
		} `json:"rules"`
	} `json:"spec"`
}

// serviceMonitor is of the Prometheus operator, monitoring.coreos.com/v1.
type serviceMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port, Path, Interval string
		} `json:"endpoints"`
	} `json:"spec"`
}

// middleware is of Traefik, traefik.io/v1alpha1.
type middleware struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ForwardAuth struct {
			Address             string   `json:"address"`
			TrustForwardHeader  bool     `json:"trustForwardHeader"`
			AuthResponseHeaders []string `json:"authResponseHeaders"`
		} `json:"forwardAuth"`
	} `json:"spec"`
}

// decode reads manifests. A field that a type does not have is a fault, so is
// one that stands twice.
func decode(text string) (*objects, error) {
	o := &objects{names: map[string]bool{}, text: text}
	for _, document := range bytes.Split([]byte("\n"+text), []byte("\n---\n")) {
		if strings.Contains(string(document), "/NOTES.txt\n") || len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		var of metav1.TypeMeta
		if err := yaml.Unmarshal(document, &of); err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, document)
		}
		if of.Kind == "" {
			return nil, fmt.Errorf("no kind:\n%s", document)
		}
		if err := o.add(of, document); err != nil {
			return nil, fmt.Errorf("%s: %w in\n%s", of.Kind, err, document)
		}
	}
	return o, nil
}

func (o *objects) add(of metav1.TypeMeta, document []byte) error {
	switch of.APIVersion + " " + of.Kind {
	case "apps/v1 Deployment":
		return keep(o, document, &o.deployments, func(d *appsv1.Deployment) metav1.ObjectMeta { return d.ObjectMeta })
	case "v1 Service":
		return keep(o, document, &o.services, func(s *corev1.Service) metav1.ObjectMeta { return s.ObjectMeta })
	case "v1 ConfigMap":
		return keep(o, document, &o.configMaps, func(c *corev1.ConfigMap) metav1.ObjectMeta { return c.ObjectMeta })
	case "v1 PersistentVolumeClaim":
		return keep(o, document, &o.claims, func(c *corev1.PersistentVolumeClaim) metav1.ObjectMeta { return c.ObjectMeta })
	case "v1 ServiceAccount":
		return keep(o, document, &o.accounts, func(a *corev1.ServiceAccount) metav1.ObjectMeta { return a.ObjectMeta })
	case "networking.k8s.io/v1 Ingress":
		return keep(o, document, &o.ingresses, func(i *networkingv1.Ingress) metav1.ObjectMeta { return i.ObjectMeta })
	case "networking.k8s.io/v1 NetworkPolicy":
		return keep(o, document, &o.policies, func(p *networkingv1.NetworkPolicy) metav1.ObjectMeta { return p.ObjectMeta })
	case "policy/v1 PodDisruptionBudget":
		return keep(o, document, &o.budgets, func(b *policyv1.PodDisruptionBudget) metav1.ObjectMeta { return b.ObjectMeta })
	case "autoscaling/v2 HorizontalPodAutoscaler":
		return keep(o, document, &o.scalers, func(h *autoscalingv2.HorizontalPodAutoscaler) metav1.ObjectMeta { return h.ObjectMeta })
	case "gateway.networking.k8s.io/v1 HTTPRoute":
		return keep(o, document, &o.routes, func(r *httpRoute) metav1.ObjectMeta { return r.ObjectMeta })
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return keep(o, document, &o.monitors, func(m *serviceMonitor) metav1.ObjectMeta { return m.ObjectMeta })
	case "traefik.io/v1alpha1 Middleware":
		return keep(o, document, &o.middlewares, func(m *middleware) metav1.ObjectMeta { return m.ObjectMeta })
	}
	return fmt.Errorf("a kind that no test knows: %s", of.APIVersion)
}

// keep decodes one object and puts it to the others of its kind.
func keep[T any](o *objects, document []byte, into *[]*T, meta func(*T) metav1.ObjectMeta) error {
	object := new(T)
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return err
	}
	m := meta(object)
	name := fmt.Sprintf("%T/%s", object, m.Name)
	if m.Name == "" || o.names[name] {
		return fmt.Errorf("no name, or one that stands twice: %q", m.Name)
	}
	o.names[name] = true
	*into = append(*into, object)
	return nil
}

// Strict means strict: what passes below is worth something only so.
func TestDecodingIsStrict(t *testing.T) {
	t.Parallel()
	const fine = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n"
	if o, err := decode(fine); err != nil || len(o.services) != 1 {
		t.Fatal(err)
	}
	for _, bad := range []string{
		strings.Replace(fine, "port: 80", "prot: 80", 1),
		strings.Replace(fine, "port: 80", "port: eighty", 1),
		strings.Replace(fine, "name: a", "name: a, name: b", 1),
		strings.Replace(fine, "{name: a}", "{}", 1),
		strings.Replace(fine, "kind: Service", "kind: Servant", 1),
		strings.Replace(fine, "kind: Service\n", "", 1),
		fine + "---\n" + fine,
	} {
		if _, err := decode(bad); err == nil {
			t.Errorf("passes:\n%s", bad)
		}
	}
}
