// Command kuberender does what "helm lint", "helm template" and "kustomize
// build" do, with the libraries those commands are made of.
//
//	kuberender lint CHART VALUES...
//	kuberender template CHART RELEASE NAMESPACE VALUES...
//	kuberender build FOLDER
package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kuberender:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "build":
		return build(args[1], out)
	case len(args) >= 2 && args[0] == "lint":
		return lintChart(args[1], args[2:], out)
	case len(args) >= 4 && args[0] == "template":
		return template(args[1], args[2], args[3], args[4:], out)
	}
	return errors.New("lint CHART VALUES..., template CHART RELEASE NAMESPACE VALUES..., or build FOLDER")
}

func build(folder string, out io.Writer) error {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return err
	}
	text, err := made.AsYaml()
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

func read(files []string) (map[string]any, error) {
	all := map[string]any{}
	for _, f := range files {
		v, err := common.ReadValuesFile(f)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, v) // files of one set do not share keys
	}
	return all, nil
}

// lintChart fails on warnings too; what is only recommended it prints.
func lintChart(chart string, files []string, out io.Writer) error {
	values, err := read(files)
	if err != nil {
		return err
	}
	said := lint.RunAll(chart, values, "default")
	for _, m := range said.Messages {
		fmt.Fprintln(out, m)
	}
	if said.HighestSeverity > 1 {
		return errors.New("the chart has faults")
	}
	return nil
}

func template(chart, release, namespace string, files []string, out io.Writer) error {
	values, err := read(files)
	if err != nil {
		return err
	}
	c, err := loader.Load(chart)
	if err != nil {
		return err
	}
	// This is where values.schema.json is heard.
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return err
	}
	made, err := (engine.Engine{Strict: false}).Render(c, all)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if text := strings.TrimSpace(made[name]); text != "" {
			fmt.Fprintf(out, "---\n# Source: %s\n%s\n", name, text)
		}
	}
	return nil
}
