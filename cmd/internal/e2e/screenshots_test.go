package e2e

import (
	"image"
	"image/color"
	"image/png"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pictures are those of the README, by file name, with their widths. "make
// screenshots" takes them anew; without it they are taken too, and thrown away,
// so that a page that went elsewhere is noticed.
var pictures = map[string]int{"group.png": 1280, "rule.png": 1280, "explain.png": 1280, "refused.png": 1280, "phone.png": 390}

const picturesAt = "../../../deploy/screenshots"

// photographer takes pictures of pages that it has made sure of.
type photographer struct {
	*surfer
	dir   string
	taken []string
}

// take takes one of what is in the window, which is height pixels high, where
// the headings of the page, or of its open dialog, are these.
func (p *photographer) take(name string, height int, headings ...string) {
	p.t.Helper()
	front := ":is(body:not(:has(dialog[open])), dialog[open]) >> :is(h1,h2):visible"
	if got := p.read(front); !slices.Equal(got, headings) {
		p.t.Fatalf("%s: the page has the headings %q, wanted %q", name, got, headings)
	}
	p.do(step{"size": []int{pictures[name], height}}, nil)
	file := filepath.Join(p.dir, name)
	p.do(step{"shot": file, "window": true}, nil)
	shrink(p.t, file)
	p.taken = append(p.taken, name)
}

// shrink keeps the 256 most frequent colours of a picture, which is what pages
// of flat colours have, but for the edges of letters.
func shrink(t *testing.T, file string) {
	t.Helper()
	r, err := os.Open(file)
	must(t, err)
	full, err := png.Decode(r)
	must(t, err)
	must(t, r.Close())
	often := map[color.Color]int{}
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			often[color.RGBAModel.Convert(full.At(x, y))]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(often), func(a, b color.Color) int { return often[b] - often[a] })
	small := image.NewPaletted(full.Bounds(), colours[:min(len(colours), 256)])
	at := map[color.Color]uint8{}
	for c := range often {
		at[c] = uint8(small.Palette.Index(c))
	}
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			small.SetColorIndex(x, y, at[color.RGBAModel.Convert(full.At(x, y))])
		}
	}
	w, err := os.Create(file)
	must(t, err)
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(w, small))
	must(t, w.Close())
}

// The pages of the pictures, with the demo's three people.
func TestScreenshots(t *testing.T) {
	testenv(t)
	dir := os.Getenv("GROUPGATE_SCREENSHOTS")
	if dir == "" {
		dir = t.TempDir()
	}
	told := runs(t, "make demo").told()
	for _, name := range []string{"carol", "bob", "alice"} {
		if page, err := newBrowser(t).Login(told["PAGE"], name); err != nil || page.Status != http.StatusOK {
			t.Fatalf("%s: %v %+v", name, err, page)
		}
	}
	p := photographer{surfer: demoSurfer(t, told, wide), dir: dir}
	console := strings.TrimSuffix(told["CONSOLE"], "/")

	p.open(console + "/groups/engineering")
	p.fill("#token", told["TOKEN"])
	p.click("main .primary")
	p.click("text=Describe")
	p.fill("#description", "Everybody who builds and runs the product")
	p.click("dialog[open] .primary")
	p.see("main .lead >> text=Everybody who builds")
	p.gone("dialog[open]")
	p.open(console + "/groups/engineering")
	p.status(http.StatusOK)
	p.take("group.png", 1040, "engineering SSO", "Members", "Rules", "History")
	p.take("phone.png", 1164, "engineering SSO", "Members", "Rules", "History")
	p.do(step{"size": p.size}, nil)

	p.open(console + "/rules?new=1&source=demo&claim=groups&value=acme-eng&group=wiki")
	p.click("dialog[open] .primary")
	p.see("#rule-save:enabled")
	p.take("rule.png", 720, "What this changes")

	p.open(console + "/explain?source=demo&query=bob")
	p.click(".explain-found a")
	p.fill("#claims", `{"groups": ["acme-eng", "ACME-ADM"]}`) // what is wrong with the second one?
	p.click("#explain .primary")
	p.see("#explain-result table")
	p.take("explain.png", 830, "Explain", "A person who has signed in", "What the source says", "What this sign-in would do for bob")

	p.open(told["PAGE"])
	p.click("button >> text=bob")
	p.open(told["PAGE"] + "admin/")
	p.status(http.StatusForbidden)
	p.take("refused.png", 758, "No access to this page")

	if slices.Sort(p.taken); !slices.Equal(p.taken, slices.Sorted(maps.Keys(pictures))) {
		t.Errorf("taken: %q", p.taken)
	}
}

// Every picture that README shows is there, and every one that is there is
// shown; together they are small.
func TestPicturesOfTheREADME(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../../README.md")
	must(t, err)
	var shown []string
	for _, m := range regexp.MustCompile(`\]\(deploy/screenshots/([^)]+)\)|src="deploy/screenshots/([^"]+)"`).FindAllStringSubmatch(string(raw), -1) {
		shown = append(shown, m[1]+m[2])
	}
	slices.Sort(shown)
	if want := slices.Sorted(maps.Keys(pictures)); !slices.Equal(shown, want) {
		t.Errorf("README shows %q, \"make screenshots\" takes %q", shown, want)
	}
	entries, err := os.ReadDir(picturesAt)
	must(t, err)
	var there []string
	var size int64
	for _, e := range entries {
		there = append(there, e.Name())
		r, err := os.Open(filepath.Join(picturesAt, e.Name()))
		must(t, err)
		picture, err := png.Decode(r)
		must(t, err)
		info, err := r.Stat()
		must(t, err)
		must(t, r.Close())
		size += info.Size()
		if picture.Bounds().Dx() != pictures[e.Name()] {
			t.Errorf("%s is %v", e.Name(), picture.Bounds())
		}
	}
	if !slices.Equal(there, shown) || size > 700_000 {
		t.Errorf("there are %q of %d bytes, README shows %q", there, size, shown)
	}
}
