package groups

import "context"

// TakeOver is what Run does every half minute.
func (d *Directory) TakeOver(ctx context.Context) error { return d.takeOver(ctx) }

// LeftOver is how long an evaluation may stand still.
const LeftOver = leftOver
