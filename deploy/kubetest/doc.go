// Package kubetest renders the Helm chart and the Kustomize folders, decodes
// what comes out strictly into the types of Kubernetes, and holds it together:
// probes to ports, ports to the configuration, references to what they name.
// It has only tests; a cluster is not needed.
//
// kuberender is the tool that renders, a module of its own.
package kubetest
