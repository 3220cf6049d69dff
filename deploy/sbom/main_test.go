package main

import (
	"bytes"
	"crypto/sha256"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Path: "example.com/tool/cmd/tool", Main: debug.Module{Path: "example.com/tool", Version: "(devel)"},
		Settings: []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "-ldflags", Value: "-X main.token=secret"}},
		Deps: []*debug.Module{
			{Path: "example.com/z", Version: "v2.0.0+incompatible", Sum: "h1:z="},
			{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1", Sum: "h1:f="}},
			{Path: "example.com/patched", Version: "v1.5.0", Replace: &debug.Module{Path: "./patched"}},
		},
	}
	got := describe(info, "v1.2.3", sha256.Sum256([]byte("a program")))
	var refs []string
	for _, c := range got.Components {
		refs = append(refs, c.PURL)
	}
	want := []string{"pkg:golang/example.com/fork@v1.0.1", "pkg:golang/example.com/patched@v1.5.0", "pkg:golang/example.com/z@v2.0.0%2Bincompatible", "pkg:golang/std@1.26.8"}
	if !slices.Equal(refs, want) || !slices.Equal(got.Dependencies[0].DependsOn, want) {
		t.Errorf("components %q, dependencies %q", refs, got.Dependencies)
	}
	main := got.Metadata.Component
	if main.PURL != "pkg:golang/example.com/tool@v1.2.3" || got.Dependencies[0].Ref != main.Ref {
		t.Errorf("%+v", main)
	}
	// How a program was linked may be nobody's business.
	if want := []property{{"go:package", info.Path}, {"go:GOOS", "linux"}}; !slices.Equal(main.Properties, want) {
		t.Errorf("properties %q", main.Properties)
	}
	if other := describe(info, "v1.2.3", sha256.Sum256([]byte("another"))); other.SerialNumber == got.SerialNumber {
		t.Error("two programs have one serial number")
	}
	if plain := describe(info, "", [32]byte{}).Metadata.Component.Version; plain != "(devel)" {
		t.Errorf("without a version: %q", plain)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var once, again bytes.Buffer
	for _, out := range []*bytes.Buffer{&once, &again} {
		if err := run([]string{program}, "v1", out); err != nil {
			t.Fatal(err)
		}
	}
	if once.String() != again.String() || !strings.Contains(once.String(), `"bomFormat": "CycloneDX"`) {
		t.Errorf("not the same twice:\n%s\n%s", &once, &again)
	}
	for _, args := range [][]string{nil, {program, program}, {"main_test.go"}, {"missing"}} {
		var out bytes.Buffer
		if err := run(args, "", &out); err == nil || out.Len() > 0 {
			t.Errorf("%q: %v, %d bytes", args, err, out.Len())
		}
	}
}
