package app

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// otlpClient sends spans by OTLP over HTTP, in protobuf and gzip (OTLP 1.x, the
// HTTP transport). The library's own client brings gRPC into the program, a
// megabyte that nothing here would call, and reads the environment.
type otlpClient struct {
	client  *http.Client
	address string
	headers map[string]string
}

var _ otlptrace.Client = (*otlpClient)(nil)

const (
	maxCollectorAnswer = 64 << 10
	firstSendPause     = 500 * time.Millisecond // doubled at each try
	sendTries          = 3
)

// Start has nothing to do.
func (c *otlpClient) Start(context.Context) error { return nil }

// Stop lets connections go.
func (c *otlpClient) Stop(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

var errPartly = errors.New("not all spans were taken")

// UploadTraces sends a batch, again after a pause where the specification says
// that this may help.
func (c *otlpClient) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// On the wire TracesData is what ExportTraceServiceRequest is.
	plain, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	if _, err := z.Write(plain); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	for try, pause := 1, firstSendPause; ; try, pause = try+1, 2*pause {
		again, err := c.send(ctx, body.Bytes())
		if err == nil || !again || try == sendTries {
			return err
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return err
		case <-wait.C:
		}
	}
}

// send is one try. again reports whether another may go better.
func (c *otlpClient) send(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	res, err := c.client.Do(req)
	if err != nil && ctx.Err() != nil {
		return false, ctx.Err() // net/http gives its cause instead
	}
	if err != nil {
		return true, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxCollectorAnswer))
	switch {
	case res.StatusCode/100 != 2:
		return slices.Contains([]int{429, 502, 503, 504}, res.StatusCode), fmt.Errorf("status %d", res.StatusCode)
	case err != nil:
		return false, err
	case rejected(answer) > 0:
		return false, errPartly
	}
	return false, nil
}

// rejected reads ExportTraceServiceResponse.partial_success.rejected_spans;
// what is no such message rejects nothing.
func rejected(answer []byte) uint64 {
	partly, n := protowire.ConsumeBytes(first(answer, protowire.BytesType))
	if n < 0 {
		return 0
	}
	spans, n := protowire.ConsumeVarint(first(partly, protowire.VarintType))
	if n < 0 {
		return 0
	}
	return spans
}

// first is a message from the value of its field 1 on; nil when it has none of
// that type.
func first(message []byte, want protowire.Type) []byte {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message = message[n:]
		if number == 1 && kind == want {
			return message
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return nil
		}
		message = message[n:]
	}
	return nil
}
