package app

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/groupgate/groupgate/config"
)

// loggers are the three kinds of line: what happens in the program, one line
// a request, and the audit trail.
type loggers struct {
	level  zap.AtomicLevel
	main   *zap.Logger
	access *zap.Logger
	audit  *zap.Logger
	buffer *zapcore.BufferedWriteSyncer
}

// newLoggers writes to w. Nothing is sampled. Request lines are written in
// batches, at the latest after a quarter of a second.
func newLoggers(c config.LogConfig, w io.Writer) *loggers {
	l := &loggers{level: zap.NewAtomicLevel()}
	l.set(c.Level)
	direct := zapcore.Lock(zapcore.AddSync(w))
	l.buffer = &zapcore.BufferedWriteSyncer{WS: direct, Size: 64 << 10, FlushInterval: 250 * time.Millisecond}
	enc := zapcore.EncoderConfig{
		TimeKey: "ts", LevelKey: "level", MessageKey: "msg", NameKey: "logger", LineEnding: "\n",
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder,
	}
	build := zapcore.NewJSONEncoder
	if c.Format == "console" {
		build = zapcore.NewConsoleEncoder
	}
	l.main = zap.New(zapcore.NewCore(build(enc), direct, l.level), zap.ErrorOutput(direct))
	l.access = zap.New(zapcore.NewCore(build(enc), l.buffer, zapcore.InfoLevel))
	// The audit trail is not a matter of taste: the level does not apply.
	l.audit = zap.New(zapcore.NewCore(build(enc), direct, zapcore.DebugLevel))
	return l
}

func (l *loggers) set(level config.LogLevel) {
	at, err := zapcore.ParseLevel(string(level))
	if err != nil {
		at = zapcore.InfoLevel // the configuration allows only words that parse
	}
	l.level.SetLevel(at)
}

func (l *loggers) close() { _ = l.buffer.Stop() }
