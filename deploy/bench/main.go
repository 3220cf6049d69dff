// Command bench compares groupgate with a bare httputil.ReverseProxy that sends
// the same headers, in the same run: the two take turns under the same load,
// and what is printed are medians and ratios. Absolute times on a shared
// machine mean little; ratios of one run do.
//
//	go run ./deploy/bench -groupgate bin/groupgate [-rounds 5] [-requests 20000]
//
// CPU time is the kernel's account of the proxy's own threads. Where perf is
// installed and counts instructions, those are printed too and are steadier.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime/metrics"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "bare":
			log.Fatal(bare(os.Args[2:]))
		case "upstream":
			log.Fatal(upstream(os.Args[2:]))
		}
	}
	o := options{}
	flag.StringVar(&o.binary, "groupgate", "bin/groupgate", "the `binary` under test")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each contender")
	flag.IntVar(&o.requests, "requests", 20000, "requests a round")
	flag.IntVar(&o.conns, "conns", 16, "connections")
	flag.BoolVar(&o.strict, "strict", false, "exit 1 when a goal of the README is missed")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal("bench: ", err)
	}
}

// bare is the yardstick: a reverse proxy of the standard library that sets the
// same headers and does nothing else.
func bare(args []string) error {
	f := flag.NewFlagSet("bare", flag.ExitOnError)
	listen := f.String("listen", "", "")
	to := f.String("upstream", "", "")
	groups := f.String("groups", "", "file with the groups header's value")
	if err := f.Parse(args); err != nil {
		return err
	}
	target, err := url.Parse(*to)
	if err != nil {
		return err
	}
	value, err := os.ReadFile(*groups)
	if err != nil {
		return err
	}
	line := strings.TrimSpace(string(value))
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1024},
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.SetXForwarded()
			pr.Out.Host = pr.In.Host
			pr.Out.Header.Set("X-Forwarded-User", "person")
			pr.Out.Header.Set("X-Forwarded-Email", "person@example.com")
			pr.Out.Header.Set("X-Forwarded-Preferred-Username", "A Person")
			pr.Out.Header.Set("X-Forwarded-Groups", line)
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("/_mallocs", func(w http.ResponseWriter, _ *http.Request) {
		sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
		metrics.Read(sample)
		fmt.Fprintf(w, "go_memstats_mallocs_total %d\n", sample[0].Value.Uint64())
	})
	return http.ListenAndServe(*listen, mux)
}

// upstream answers 1 KiB to everything.
func upstream(args []string) error {
	f := flag.NewFlagSet("upstream", flag.ExitOnError)
	listen := f.String("listen", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	body := []byte(strings.Repeat("x", 1024))
	srv := &http.Server{Addr: *listen, MaxHeaderBytes: 1 << 20, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"text/plain"}
		_, _ = w.Write(body)
	})}
	return srv.ListenAndServe()
}
