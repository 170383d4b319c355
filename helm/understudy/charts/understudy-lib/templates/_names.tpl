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

{{/* At most 40 characters, so that suffixes fit into the 63 of a label. */}}
{{- define "understudy-lib.fullname" -}}
{{- $own := default .Values .Values.understudy -}}
{{- $name := include "understudy-lib.name" . -}}
{{- if $own.fullnameOverride -}}
{{- $own.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
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
{{- define "understudy-lib.version" -}}0.1.0{{- end }}

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
