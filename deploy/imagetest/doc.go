// Package imagetest builds the image of deploy/Dockerfile, looks at what is in
// it, and runs it. It has only tests.
package imagetest
