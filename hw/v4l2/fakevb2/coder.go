package fakevb2

// Grey codes a picture as an access unit with start codes, all grey. In H.264
// that is constrained baseline: a key picture predicts each macroblock from
// nothing, the others skip all. HEVC comes in one size, [WidthHEVC] ×
// [HeightHEVC], whatever the picture's. Decoders take both.
func Grey(p Picture) []byte {
	if p.Codec == fourCC("HEVC") {
		return greyHEVC(p)
	}
	var au []byte
	if p.Headers {
		au = Headers(p.Width, p.Height)
	}
	return append(au, slice(p)...)
}

// Headers returns a sequence and a picture parameter set with start codes.
func Headers(width, height int) []byte {
	mbs := func(pixels int) int { return (pixels + 15) / 16 }
	var s bits
	s.u(8, 66)   // profile_idc: baseline
	s.u(8, 0xC0) // constrained
	s.u(8, 40)   // level_idc
	s.ue(0)      // seq_parameter_set_id
	s.ue(frameNumBits - 4)
	s.ue(2) // pic_order_cnt_type: output is in coding order
	s.ue(1) // max_num_ref_frames
	s.u(1, 0)
	s.ue(mbs(width) - 1)
	s.ue(mbs(height) - 1)
	s.u(1, 1) // frame_mbs_only_flag
	s.u(1, 1) // direct_8x8_inference_flag
	right, bottom := mbs(width)*16-width, mbs(height)*16-height
	if right+bottom > 0 {
		s.u(1, 1)
		s.ue(0)
		s.ue(right / 2)
		s.ue(0)
		s.ue(bottom / 2)
	} else {
		s.u(1, 0)
	}
	s.u(1, 0) // no VUI

	var p bits
	p.ue(0)   // pic_parameter_set_id
	p.ue(0)   // seq_parameter_set_id
	p.u(1, 0) // CAVLC
	p.u(1, 0)
	p.ue(0) // one slice group
	p.ue(0)
	p.ue(0)
	p.u(3, 0) // no weighted prediction
	p.ue(0)   // pic_init_qp: 26
	p.ue(0)
	p.ue(0)
	p.u(3, 0b100) // deblocking_filter_control_present_flag
	return append(s.unit(0x67), p.unit(0x68)...)
}

// headersOf returns the parameter sets of a picture.
func headersOf(p Picture) []byte {
	if p.Codec == fourCC("HEVC") {
		return headersHEVC()
	}
	return Headers(p.Width, p.Height)
}

const frameNumBits = 16

// slice codes the whole picture in one slice.
func slice(p Picture) []byte {
	macroblocks := (p.Width + 15) / 16 * ((p.Height + 15) / 16)
	var s bits
	s.ue(0) // first_mb_in_slice
	if p.Key {
		s.ue(7) // I, and so are all of the picture
	} else {
		s.ue(5) // P
	}
	s.ue(0) // pic_parameter_set_id
	s.u(frameNumBits, p.FrameNum%(1<<frameNumBits))
	if p.Key {
		s.ue(p.Keys & 1) // idr_pic_id: not that of the key before
		s.u(2, 0)        // dec_ref_pic_marking
	} else {
		s.u(2, 0) // num_ref_idx_active_override_flag, ref_pic_list_modification_flag_l0
		s.u(1, 0) // adaptive_ref_pic_marking_mode_flag
	}
	s.ue(0) // slice_qp_delta
	s.ue(1) // disable_deblocking_filter_idc
	if !p.Key {
		s.ue(macroblocks) // mb_skip_run
		return s.unit(0x41)
	}
	for range macroblocks {
		s.ue(3)   // I_16x16 with DC prediction, nothing coded
		s.ue(0)   // intra_chroma_pred_mode: DC
		s.ue(0)   // mb_qp_delta
		s.u(1, 1) // coeff_token of the luma DC: none
	}
	return s.unit(0x65)
}

// bits writes the syntax elements of H.264.
type bits struct {
	b []byte
	n int
}

func (w *bits) u(n, v int) {
	for i := n - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (7 - w.n%8)
		w.n++
	}
}

// ue writes an Exp-Golomb code.
func (w *bits) ue(v int) {
	n := 0
	for (v+1)>>(n+1) > 0 {
		n++
	}
	w.u(n, 0)
	w.u(n+1, v+1)
}

// unit closes the bits and returns them as a NAL unit with a start code.
func (w *bits) unit(header byte) []byte {
	w.u(1, 1)
	nal := []byte{0, 0, 0, 1, header}
	zeros := 0
	for _, v := range w.b {
		if zeros == 2 && v <= 3 {
			nal = append(nal, 3) // emulation prevention
			zeros = 0
		}
		if v == 0 {
			zeros++
		} else {
			zeros = 0
		}
		nal = append(nal, v)
	}
	return nal
}
