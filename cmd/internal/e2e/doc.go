// Package e2e holds nothing but tests: the program as it is shipped, run as a
// process of its own, against peers that nobody here wrote (npm oidc-provider
// and Chromium, see deploy/testenv) and against signals, kills and a store that
// goes away. Only loopback is used.
package e2e
