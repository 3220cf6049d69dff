// Package kubernetes is empty: Helm imports it for its version alone.
package kubernetes
