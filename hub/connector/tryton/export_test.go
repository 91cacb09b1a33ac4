package tryton

// ReadStockBy makes the pages small in which stock is read.
func (c *Connector) ReadStockBy(n int) { c.stockPage = n }
