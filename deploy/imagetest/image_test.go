package imagetest

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/deploy/testenv"
)

const (
	version    = "v0.0.0-test"
	program    = "/usr/bin/groupgate"
	roots      = "/etc/ssl/certs/ca-certificates.crt"
	bill       = "/usr/share/sbom/groupgate.cdx.json"
	adminToken = "an-admin-token-for-tests-only-0123456789"
	secret     = "a-client-secret-for-tests-only"
)

// The image is built once; every test needs it.
func TestImage(t *testing.T) {
	t.Parallel()
	image := build(t)
	t.Run("configuration", func(t *testing.T) { checkConfiguration(t, image) })
	t.Run("files", func(t *testing.T) { checkFiles(t, image) })
	t.Run("bill of materials", func(t *testing.T) { checkBill(t, image) })
	t.Run("login", func(t *testing.T) { checkLogin(t, image) })
	t.Run("restricted", func(t *testing.T) { checkRestricted(t, image) })
	t.Run("time zones", func(t *testing.T) { checkTimeZones(t, image) })
}

func build(t *testing.T) *testenv.Image {
	t.Helper()
	made := t.TempDir()
	image := testenv.BuildImage(t, "../Dockerfile", made, func() error {
		out, err := exec.Command("../image/build.sh", version, filepath.Join(made, "out")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("build.sh: %w\n%s", err, out)
		}
		return nil
	}, "VERSION="+version, "REVISION=0123456789abcdef")
	return image
}

// settings are the part of the OCI image configuration that says how to run it.
type settings struct {
	User, WorkingDir      string
	Entrypoint, Cmd, Env  []string
	Labels                map[string]string
	ExposedPorts, Volumes map[string]struct{}
}

func settingsOf(t *testing.T, image *testenv.Image) settings {
	t.Helper()
	var is struct {
		OS     string
		Config settings
	}
	if err := json.Unmarshal([]byte(image.Config), &is); err != nil || is.OS != "linux" {
		t.Fatalf("%v, for %q", err, is.OS)
	}
	return is.Config
}

func checkConfiguration(t *testing.T, image *testenv.Image) {
	c := settingsOf(t, image)
	for what, both := range map[string][2]string{
		"user":       {c.User, "65532:65532"},
		"entrypoint": {strings.Join(c.Entrypoint, " "), program},
		"cmd":        {strings.Join(c.Cmd, " "), "serve"},
		"folder":     {c.WorkingDir, "/data"},
		"volumes":    {keys(c.Volumes), "/data"},
		"ports":      {keys(c.ExposedPorts), "4180/tcp 4181/tcp"},
		"version":    {c.Labels["org.opencontainers.image.version"], version},
		"revision":   {c.Labels["org.opencontainers.image.revision"], "0123456789abcdef"},
		"licence":    {c.Labels["org.opencontainers.image.licenses"], "Apache-2.0"},
		"title":      {c.Labels["org.opencontainers.image.title"], "groupgate"},
	} {
		if both[0] != both[1] {
			t.Errorf("%s is %q, wanted %q", what, both[0], both[1])
		}
	}
	for _, name := range []string{"description", "source", "url", "documentation"} {
		if c.Labels["org.opencontainers.image."+name] == "" {
			t.Errorf("no label %s", name)
		}
	}
}

func keys(m map[string]struct{}) string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Nothing but three files, and one folder that is the user's.
func checkFiles(t *testing.T, image *testenv.Image) {
	var files, writable []string
	err := filepath.WalkDir(image.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := "/" + strings.TrimPrefix(strings.TrimPrefix(path, image.Root), "/")
		if !d.IsDir() {
			files = append(files, fmt.Sprintf("%s %v", at, info.Mode()))
		}
		if owner := owner(info); owner == 65532 {
			writable = append(writable, at)
		} else if owner != 0 || info.Mode()&0o022 != 0 {
			t.Errorf("%s: owner %d, %v", at, owner, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{roots + " -rw-r--r--", program + " -rwxr-xr-x", bill + " -rw-r--r--"}; !slices.Equal(files, want) {
		t.Errorf("files\n%q, wanted\n%q", files, want)
	}
	if !slices.Equal(writable, []string{"/data"}) {
		t.Errorf("the user's are %q", writable)
	}
	t.Logf("%.1f MiB", float64(image.Size)/(1<<20))
	if image.Size > 40<<20 {
		t.Errorf("the image has %d bytes", image.Size)
	}
}

// checkBill holds the bill to what the linker wrote into the program, and to
// what the schema of CycloneDX 1.6 asks of the fields it has.
func checkBill(t *testing.T, image *testenv.Image) {
	raw, err := os.ReadFile(filepath.Join(image.Root, bill))
	if err != nil {
		t.Fatal(err)
	}
	type hash struct{ Alg, Content string }
	type component struct {
		Type    string `json:"type"`
		Ref     string `json:"bom-ref"`
		Name    string `json:"name"`
		Version string `json:"version"`
		PURL    string `json:"purl"`
		Hashes  []hash `json:"hashes"`
	}
	var has struct {
		Format       string                        `json:"bomFormat"`
		SpecVersion  string                        `json:"specVersion"`
		SerialNumber string                        `json:"serialNumber"`
		Version      int                           `json:"version"`
		Metadata     struct{ Component component } `json:"metadata"`
		Components   []component                   `json:"components"`
		Dependencies []struct {
			Ref       string
			DependsOn []string `json:"dependsOn"`
		} `json:"dependencies"`
	}
	if err := json.Unmarshal(raw, &has); err != nil {
		t.Fatal(err)
	}
	if has.Format != "CycloneDX" || has.SpecVersion != "1.6" || has.Version != 1 ||
		!regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(has.SerialNumber) {
		t.Errorf("%s %s %d %s", has.Format, has.SpecVersion, has.Version, has.SerialNumber)
	}
	binary := filepath.Join(image.Root, program)
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	main := has.Metadata.Component
	if main.Type != "application" || main.Version != version || len(main.Hashes) != 1 ||
		main.Hashes[0] != (hash{"SHA-256", hex.EncodeToString(sum[:])}) {
		t.Errorf("the program is %+v", main)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range info.Deps {
		want = append(want, "pkg:golang/"+m.Path+"@"+strings.ReplaceAll(m.Version, "+", "%2B"))
	}
	slices.Sort(want)
	var listed []string
	for _, c := range has.Components {
		if c.Type != "library" || c.Ref != c.PURL || c.Name == "" {
			t.Errorf("%+v", c)
		}
		listed = append(listed, c.PURL)
	}
	if !slices.Equal(listed, want) || len(want) < 30 {
		t.Errorf("listed are\n%q, in the program are\n%q", listed, want)
	}
	if d := has.Dependencies; len(d) != 1 || d[0].Ref != main.Ref || !slices.Equal(d[0].DependsOn, listed) {
		t.Errorf("dependencies %+v", d)
	}
}
