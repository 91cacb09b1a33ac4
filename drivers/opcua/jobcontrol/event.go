package jobcontrol

import "github.com/gopcua/opcua/ua"

// DecodeEvents reads an EventNotificationList: for each event the fields that were selected.
func DecodeEvents(b []byte) ([][]*ua.Variant, error) {
	var events [][]*ua.Variant
	_, err := decode(b, func(c *coder) {
		list(c, &events, 8, func(c *coder, fields *[]*ua.Variant) {
			var handle uint32
			c.uint32(&handle)
			list(c, fields, 1, (*coder).variant)
		})
	})
	return events, err
}

// DecodeState reads one state's structure.
func DecodeState(b []byte) (s State, err error) {
	_, err = decode(b, func(c *coder) { codeState(c, &s) })
	return s, err
}
