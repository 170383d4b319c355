{{/*
The values of this library: those below `understudy` (the alias of the dependency) in a model's own
chart, all of them in the chart understudy itself.
*/}}
{{- define "understudy-lib.settings" -}}
{{- toYaml (default .Values .Values.understudy) -}}
{{- end }}

{{- define "understudy-lib.name" -}}
{{- $own := default .Values .Values.understudy -}}
{{- default "understudy" $own.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/*
A name that fits: (dict "name" N "limit" 40). A longer one ends with a hash of the whole, so that two
names with the same beginning stay different.
*/}}
{{- define "understudy-lib.fitted" -}}
{{- if le (len .name) (int .limit) -}}
{{- .name -}}
{{- else -}}
{{- printf "%s-%s" (.name | trunc (sub (int .limit) 9 | int) | trimSuffix "-") (sha256sum .name | trunc 8) -}}
{{- end -}}
{{- end }}

{{/* At most 40 characters, so that suffixes fit into the 63 of a label. */}}
{{- define "understudy-lib.fullname" -}}
{{- $own := default .Values .Values.understudy -}}
{{- $name := include "understudy-lib.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if $own.fullnameOverride -}}
{{- $full = $own.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- include "understudy-lib.fitted" (dict "name" $full "limit" 40) -}}
{{- end }}

{{- define "understudy-lib.image" -}}
{{- $image := (default .Values .Values.understudy).image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (include "understudy-lib.version" .) $image.tag) -}}
{{- end -}}
{{- end }}

{{/* The version of Understudy: this library's, whose application version the test keeps. */}}
{{- define "understudy-lib.version" -}}0.2.0{{- end }}

{{- define "understudy-lib.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: understudy
app.kubernetes.io/version: {{ include "understudy-lib.version" . | quote }}
{{ include "understudy-lib.selectorLabels" . }}
{{- with (default .Values .Values.understudy).commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "understudy-lib.selectorLabels" -}}
app.kubernetes.io/name: {{ include "understudy-lib.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of pods with the sidecar: the PodMonitor finds them by it. */}}
{{- define "understudy-lib.podLabels" -}}
understudy/sidecar: {{ include "understudy-lib.fullname" . }}
{{- end }}

{{/* Annotations of pods with the sidecar: another configuration, other pods. */}}
{{- define "understudy-lib.podAnnotations" -}}
checksum/understudy: {{ include "understudy-lib.configData" . | sha256sum }}
{{- end }}

{{- define "understudy-lib.secretName" -}}
{{- default (printf "%s-token" (include "understudy-lib.fullname" .)) (default .Values .Values.understudy).token.existingSecret -}}
{{- end }}
