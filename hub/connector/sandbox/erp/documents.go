package erp

import (
	"context"
	"net/http"
	"time"
)

// OrderDocuments is the answer to a question for all documents of an order.
type OrderDocuments struct {
	// AsOf is the ERP's clock before the reading began.
	AsOf      time.Time  `json:"as_of"`
	Order     Order      `json:"order"`
	Documents []Document `json:"documents"`
}

// DocumentsOf reads an order with all of its documents in one snapshot.
func (e *ERP) DocumentsOf(ctx context.Context, no string) (OrderDocuments, error) {
	lag := time.Duration(e.Faults().ReadLag)
	all := OrderDocuments{AsOf: e.now().Add(-lag).UTC(), Documents: []Document{}}
	tx, err := e.readers.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return all, err
	}
	defer tx.Rollback()
	if all.Order, err = readOrder(tx, no); err != nil {
		return all, err
	}
	docs, err := readDocuments(tx, ` where d.order_no = $1 and d.arrived <= $2`, no, seen(all.AsOf, lag))
	all.Documents = append(all.Documents, docs...)
	return all, err
}

func (e *ERP) serveOrderDocuments(w http.ResponseWriter, r *http.Request) error {
	all, err := e.DocumentsOf(r.Context(), r.PathValue("no"))
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, all)
}
