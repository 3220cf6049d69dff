package kubetest

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// unrestricted answers what a pod has against the Pod Security Standard
// "restricted", control by control, and what we ask for beside it: a root that
// nobody writes to, and no token.
func unrestricted(p *corev1.PodSpec) (faults []string) {
	no := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	no(p.HostNetwork || p.HostPID || p.HostIPC, "host namespaces")
	no(p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken, "a service account's token")
	pod := p.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	no(len(pod.Sysctls) > 0, "sysctls")
	no(pod.RunAsUser != nil && *pod.RunAsUser == 0, "the pod runs as root")
	for _, v := range p.Volumes {
		s := v.VolumeSource
		no(s.ConfigMap == nil && s.Secret == nil && s.Projected == nil && s.EmptyDir == nil && s.PersistentVolumeClaim == nil, "volume %s", v.Name)
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		s := c.SecurityContext
		if s == nil {
			faults = append(faults, c.Name+": no security context")
			continue
		}
		no(s.Privileged != nil && *s.Privileged, "%s: privileged", c.Name)
		no(s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation, "%s: may escalate", c.Name)
		no(s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "%s: writes to its root", c.Name)
		no(s.ProcMount != nil && *s.ProcMount != corev1.DefaultProcMount, "%s: proc", c.Name)
		nonRoot := pod.RunAsNonRoot
		if s.RunAsNonRoot != nil {
			nonRoot = s.RunAsNonRoot
		}
		no(nonRoot == nil || !*nonRoot, "%s: may be root", c.Name)
		no(s.RunAsUser != nil && *s.RunAsUser == 0, "%s: is root", c.Name)
		seccomp := pod.SeccompProfile
		if s.SeccompProfile != nil {
			seccomp = s.SeccompProfile
		}
		no(seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault, "%s: seccomp", c.Name)
		no(s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") || len(s.Capabilities.Add) > 0, "%s: capabilities", c.Name)
		for _, port := range c.Ports {
			no(port.HostPort != 0, "%s: a port of the host", c.Name)
		}
	}
	return faults
}

// Every control is heard: a pod that passes fails with any one of these.
func TestRestrictedIsHeard(t *testing.T) {
	t.Parallel()
	o := build(t, "example")
	fine := &o.deployments[0].Spec.Template.Spec
	if faults := unrestricted(fine); len(faults) > 0 {
		t.Fatal(faults)
	}
	yes, zero := true, int64(0)
	for i, spoil := range []func(p *corev1.PodSpec, c *corev1.Container){
		func(p *corev1.PodSpec, _ *corev1.Container) { p.HostNetwork = true },
		func(p *corev1.PodSpec, _ *corev1.Container) { p.HostPID = true },
		func(p *corev1.PodSpec, _ *corev1.Container) { p.HostIPC = true },
		func(p *corev1.PodSpec, _ *corev1.Container) { p.AutomountServiceAccountToken = nil },
		func(p *corev1.PodSpec, _ *corev1.Container) { p.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "a"}} },
		func(p *corev1.PodSpec, _ *corev1.Container) { p.SecurityContext.RunAsUser = &zero },
		func(p *corev1.PodSpec, _ *corev1.Container) {
			p.Volumes = append(p.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}})
		},
		func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext = nil },
		func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.Privileged = &yes },
		func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil },
		func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.ReadOnlyRootFilesystem = nil },
		func(p *corev1.PodSpec, c *corev1.Container) {
			p.SecurityContext.RunAsNonRoot, c.SecurityContext.RunAsNonRoot = nil, nil
		},
		func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.RunAsUser = &zero },
		func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.SeccompProfile.Type = "Unconfined" },
		func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.Capabilities.Drop = nil },
		func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE"}
		},
		func(_ *corev1.PodSpec, c *corev1.Container) {
			c.Ports = append(c.Ports, corev1.ContainerPort{HostPort: 80})
		},
	} {
		for _, init := range []bool{true, false} {
			p := fine.DeepCopy()
			c := &p.Containers[0]
			if init {
				c = &p.InitContainers[0]
			}
			spoil(p, c)
			if len(unrestricted(p)) == 0 {
				t.Errorf("spoiled %d is not seen, in an init container %t", i, init)
			}
		}
	}
}
